"""What deciding about bills needs of the settings and the day."""

from monitoring.clock import local_today
from schemas.settings import Settings
from storage.bill_make import Rules
from storage.proposal import Desk


def desk_of(settings: Settings) -> Desk:
    """Return what deciding about bills needs, today by the console's clock."""
    return Desk(local_today(settings.console.zone), settings.billing.due_days, Rules.of(settings.billing))
