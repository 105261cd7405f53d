"""``worklist due`` and ``prioritise``: which studies are to come, and which work goes first."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config
from dicom_node.cli.worklist import print_rows
from dicom_node.domain import urgency
from dicom_node.domain.people import By


def due(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the studies that worklists of scheduled procedures name and that have not come, the oldest first.

    JSON: a list of {"worklist", "study_instance_uid", "due_at", "priority", "procedure", "state" ("due" or "missed")}.
    """
    from dicom_node import node
    from dicom_node.domain.audit import StudiesListed
    from dicom_node.pipeline.due import listed

    with exit_codes(), node.open_node(read_config(config)) as opened:
        opened.audit(StudiesListed(node.now(), node.person(), "worklist due"))
        rows = listed(opened.engine)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        print_rows([{**row, "priority": urgency.name(int(str(row["priority"])))} for row in rows])


def prioritise(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    priority: Annotated[
        Literal["STAT", "HIGH", "ROUTINE", "LOW"], typer.Option(help="Of the study's work that is not begun.")
    ],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Give a study's work that is not begun another priority.

    JSON: a list of {"study_instance_uid", "item", "kind", "revision", "destination", "state", "became", "reason"}.
    """
    from dicom_node import node
    from dicom_node.node.desk import desk

    with exit_codes(), node.open_node(read_config(config)) as opened, desk(opened) as orders:
        rows = orders.prioritise(study, urgency.stated(priority), By(node.person()))
        if as_json:
            typer.echo(json.dumps([dict(row) for row in rows], indent=2))
            return
        print_rows(rows)
