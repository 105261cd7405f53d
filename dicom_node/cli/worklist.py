"""``worklist list`` and ``show``: what the node holds and has to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, moment, read_config
from dicom_node.domain.audit import StudiesListed, StudyAccessed
from dicom_node.domain.states import State
from dicom_node.domain.types import Verdict

if TYPE_CHECKING:
    from dicom_node.store.selection import Wanted

app = typer.Typer(no_args_is_help=True, help="List studies and work; retry, cancel, analyse again, deliver.")

Since = Annotated[
    str, typer.Option(help="Only if the study's last image came at this moment or later, local time.")
]
Until = Annotated[str, typer.Option(help="Only if the study's last image came before this moment, local time.")]
OfVerdict = Annotated[Verdict | None, typer.Option("--verdict", help="Only if the newest report says this.")]


_LEFT = (State.SCHEDULED, State.IN_PROGRESS, State.FAILED)
_SHOWN: dict[str, tuple[str, ...]] = {
    "history": (),
    "instances": ("sop_instance_uid", "revision", "conflict", "kept", "calling_ae_title", "received_at"),
    "work_items": (
        "id",
        "kind",
        "revision",
        "destination",
        "bank",
        "state",
        "attempts",
        "available_at",
        "reason",
    ),
    "destinations": (),
    "commitments": ("destination", "sop_instance_uid", "asked_at", "answered_at", "failure_reason"),
    "events": ("at", "kind", "work_item_id", "detail"),
}
"""What `show` prints for people; without columns, all of them."""


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same columns as a table."""
    if not rows:
        typer.echo("nothing")
        return
    columns = list(rows[0])
    cells = [[str("" if row[c] is None else row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    for line in [columns, *cells]:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@app.command("list")
def list_(
    config: ConfigPath = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many studies, newest first.")] = 50,
    verdict: OfVerdict = None,
    since: Since = "",
    until: Until = "",
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only with work that is left to do or failed.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only with work that has failed.")] = False,
    destination: Annotated[str, typer.Option(help="As --waiting, for this destination.")] = "",
    as_json: AsJson = False,
) -> None:
    """List studies, the newest first, with what became of each and what still has to be done.

    JSON: a list of {"study_instance_uid", "revision", "is_open", "first_received_at", "last_received_at",
    "images", "conflicts", "verdict", "deliveries", "waiting"}.
    """
    from dicom_node import node
    from dicom_node.pipeline import admin
    from dicom_node.store.selection import Wanted

    with exit_codes(), node.open_node(read_config(config)) as opened:
        wanted = Wanted(
            verdict,
            since=moment(since, "--since"),
            until=moment(until, "--until"),
            states=(State.FAILED,) if failed else _LEFT if waiting else (),
            destination=destination,
        )
        opened.audit(StudiesListed(node.now(), node.person(), f"worklist list --limit {limit}{_asked(wanted)}"))
        rows = admin.list_studies(opened.engine, limit, wanted)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        for row in rows:
            row["waiting"] = "; ".join(
                f"item {w['id']} {w['kind']} {w['destination']} {w['state']} {w['reason']}".replace("  ", " ")
                for w in row["waiting"]
            )
            for hidden in ("first_received_at", "conflicts"):
                del row[hidden]
        print_rows(rows)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show one study: its history, images, work, where its reports are, commitments asked for, and events.

    JSON: an object with these lists, and the tables behind them.
    """
    from dicom_node import node
    from dicom_node.pipeline import admin

    with exit_codes(), node.open_node(read_config(config)) as opened:
        parts = admin.show_study(opened.engine, study)
        opened.audit(StudyAccessed(node.now(), node.person(), study))
        if as_json:
            typer.echo(json.dumps(parts, indent=2))
            return
        for name, columns in _SHOWN.items():
            typer.echo(f"\n{name.replace('_', ' ')}")
            print_rows([{c: row[c] for c in columns or row} for row in parts[name]])


def _asked(wanted: Wanted) -> str:
    """Return the conditions for the audit trail."""
    told = {name: value for name, value in asdict(wanted).items() if value}
    return "".join(f", {name} {value}" for name, value in told.items())
