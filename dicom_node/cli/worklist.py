"""``worklist``: what the node holds and has to do, and a person's hand on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config

app = typer.Typer(no_args_is_help=True, help="List studies and work; retry or cancel an item.")
Item = Annotated[int, typer.Argument(help="Id of a work item, as `list` and `show` print it.")]


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
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
    as_json: AsJson = False,
) -> None:
    """List studies, the newest first, with what became of each and what still has to be done.

    JSON: a list of {"study_instance_uid", "revision", "is_open", "first_received_at", "last_received_at",
    "images", "conflicts", "verdict", "deliveries", "waiting"}.
    """
    from dicom_node import node
    from dicom_node.pipeline import admin

    with exit_codes(), node.open_node(read_config(config)) as opened:
        rows = admin.list_studies(opened.engine, limit)
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
        _print(rows)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show one study: revisions, images, work, reports, deliveries and its history.

    JSON: an object with these lists.
    """
    from dicom_node import node
    from dicom_node.pipeline import admin

    with exit_codes(), node.open_node(read_config(config)) as opened:
        parts = admin.show_study(opened.engine, study)
        if as_json:
            typer.echo(json.dumps(parts, indent=2))
            return
        for name, rows in parts.items():
            typer.echo(f"\n{name.replace('_', ' ')}")
            _print(rows)


@app.command()
def retry(item: Item, config: ConfigPath = None) -> None:
    """Schedule a FAILED or CANCELED item again; an analysis already answered gets a new revision."""
    from dicom_node import node
    from dicom_node.pipeline import admin

    with exit_codes(), node.open_node(read_config(config)) as opened:
        retried = admin.retry(opened.engine, item, node.now())
        if retried.item_id is not None:
            typer.echo(f"scheduled as item {retried.item_id}")
        else:
            typer.echo(
                f"images are arriving for revision {retried.revision} of the study; "
                "it is analysed once they are complete"
            )


@app.command()
def cancel(item: Item, config: ConfigPath = None) -> None:
    """Cancel an item that is not finished."""
    from dicom_node import node
    from dicom_node.pipeline import admin

    with exit_codes(), node.open_node(read_config(config)) as opened:
        admin.cancel(opened.engine, item, node.now())
        typer.echo(f"item {item} is canceled")
