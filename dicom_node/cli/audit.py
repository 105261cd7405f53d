"""``audit``: a person's look at the audit trail, which is told of in it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, moment, read_config


def audit(
    config: ConfigPath = None,
    since: Annotated[
        str, typer.Option(help="Only what happened since, such as 2026-11-24 or 2026-11-24T07:00, local time.")
    ] = "",
    study: Annotated[str, typer.Option(help="Only what concerns this Study Instance UID.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print the audit trail, oldest first; that it was read becomes part of it.

    JSON: one audit message a line, in the names of DICOM's audit message schema (PS3.15 A.5.1).
    """
    from dicom_node import node
    from dicom_node.observe.audit_reading import one_line

    with exit_codes():
        settings = read_config(config)
        for told in node.read_trail(settings, moment(since, "--since"), study):
            typer.echo(json.dumps(told, ensure_ascii=False) if as_json else one_line(told))
