"""``selftest``: a phantom through the live port, and the report that returns, judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config


def selftest(
    config: ConfigPath = None,
    deliver: Annotated[
        bool, typer.Option("--deliver", help="Also send the phantom's report to every destination.")
    ] = False,
    username: Annotated[
        str, typer.Option("--username", help="Who to be, where the node asks for a user identity.")
    ] = "",
    passcode_file: Annotated[
        Path | None, typer.Option("--passcode-file", help="File that holds the passcode of that user.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the report.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Send a phantom to the running node and judge the report; without --deliver it stays in the node.

    JSON: {"study_instance_uid", "verdict", "percentile", "seconds", "delivered"}.
    """
    from dicom_node import node

    with exit_codes():
        passed = node.selftest(
            read_config(config),
            deliver=deliver,
            timeout=timeout,
            username=username,
            passcode_file=passcode_file,
        )
        if as_json:
            typer.echo(json.dumps(asdict(passed)))
        else:
            typer.echo(
                f"passed: {passed.verdict}, percentile {passed.percentile}, after {passed.seconds:.1f} s, "
                f"delivered to {', '.join(passed.delivered) or 'no destination'}"
            )
