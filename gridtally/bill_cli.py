"""`gridtally bill`: every command about bills, put together."""

import typer

from gridtally.bill_change_cli import bill_amend, bill_approve, bill_cancel, bill_proposals, bill_rebill, bill_reject
from gridtally.bill_explain_cli import bill_explain
from gridtally.bill_look_cli import bill_delete, bill_held, bill_issue, bill_list, bill_release, bill_show
from gridtally.bill_paper import bill_deliveries, bill_html, bill_pdf, bill_send
from gridtally.bill_run_cli import bill_run, bill_runs
from gridtally.bundle_cli import bill_bundle, bill_public_key, bill_verify

bill_app = typer.Typer(help="Run, look up, amend and send bills.", no_args_is_help=True)
for name, command in (
    ("run", bill_run),
    ("runs", bill_runs),
    ("list", bill_list),
    ("show", bill_show),
    ("held", bill_held),
    ("explain", bill_explain),
    ("release", bill_release),
    ("issue", bill_issue),
    ("delete", bill_delete),
    ("amend", bill_amend),
    ("cancel", bill_cancel),
    ("rebill", bill_rebill),
    ("proposals", bill_proposals),
    ("approve", bill_approve),
    ("reject", bill_reject),
    ("pdf", bill_pdf),
    ("html", bill_html),
    ("send", bill_send),
    ("deliveries", bill_deliveries),
    ("bundle", bill_bundle),
    ("verify", bill_verify),
    ("public-key", bill_public_key),
):
    bill_app.command(name)(command)
