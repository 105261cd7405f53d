"""The command ``dicom-node``: gathers the subcommands. Exit codes: 0 done, 1 work failed, 2 configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_node import __version__
from dicom_node.cli import (
    audit,
    backup,
    bank,
    bank_life,
    conformance,
    demo,
    keep,
    mark,
    retrieve,
    run,
    score,
    selftest,
    user,
    worklist,
    worklist_due,
    worklist_orders,
    worklist_tasks,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Scores chest X-rays by their distance to this site's own normal chests and returns a DICOM "
        "Structured Report. Not a medical device; results are unverified. "
        "Exit codes: 0 done, 1 work failed, 2 configuration."
    ),
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"dicom-node {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options that need no subcommand."""


app.command()(run.serve)
app.command()(run.receive)
app.command()(run.work)
app.command()(run.web)
app.command()(run.check)
app.command()(conformance.conformance)
app.command()(keep.prune)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(audit.audit)
app.command()(retrieve.retrieve)
app.command()(retrieve.backfill)
app.command()(score.score)
app.command()(selftest.selftest)
app.command()(demo.demo)
for command in (bank_life.rebuild, bank_life.rollback, bank_life.compare, bank_life.gc):
    bank.app.command()(command)
worklist.app.command()(worklist_orders.retry)
worklist.app.command()(worklist_orders.cancel)
worklist.app.command()(worklist_orders.rerun)
worklist.app.command()(worklist_orders.deliver)
worklist.app.command()(worklist_due.due)
worklist.app.command()(worklist_due.prioritise)
worklist.app.command()(mark.mark)
worklist.app.command()(worklist_tasks.tasks)
worklist.app.command()(worklist_tasks.discontinue)
app.add_typer(bank.app, name="bank")
app.add_typer(worklist.app, name="worklist")
app.add_typer(user.app, name="user")
