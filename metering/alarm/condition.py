"""What a detector says: a condition of a subject holds, or no longer holds."""

import dataclasses
import datetime as dt


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One statement of a detector about a subject; said twice it changes nothing but the count of occurrences."""

    subject: str
    """A meter id, a gateway id, or a node of the network such as ``feeder-1/transformer-07``."""
    kind: str
    """Of `metering.alarm.catalogue.KINDS`."""
    is_active: bool
    at: dt.datetime
    """When it happened, by the event's own time; UTC."""
    detail: str = ""
    """What people read: value, limit, where from; at most 500 characters are kept."""
    value: float | None = None
    limit: float | None = None
    """What the value was held against."""
