"""The printer of bills for the console: console and connectors are neighbours, and this house stands above both."""

from connectors.paper.page import bill_html, content_policy
from connectors.paper.print import bill_pdf
from connectors.paper.sheet import Paper
from storage.bill_paper import BillOnPaper


class Sheets:
    """Prints bills."""

    def html(self, bill: BillOnPaper) -> tuple[str, str]:
        """Return a bill as a page of its own, and the Content-Security-Policy that it needs."""
        return bill_html(_paper_of(bill)), content_policy()

    def pdf(self, bill: BillOnPaper) -> bytes:
        """Return a bill as a PDF."""
        return bill_pdf(_paper_of(bill))


def _paper_of(bill: BillOnPaper) -> Paper:
    return Paper(bill.document, bill.tariffs, bill.balance_before)
