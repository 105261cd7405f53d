"""``conformance``: the DICOM Conformance Statement of this node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import FAILED, ConfigPath, exit_codes, read_config
from dicom_node.domain.errors import ConfigError


def conformance(
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; fail if the file of --out is not what it would become."),
    ] = False,
    config: ConfigPath = None,
) -> None:
    """Print the DICOM Conformance Statement (PS3.2) of this node, with this configuration; Markdown."""
    from dicom_node.node.stating import conformance_statement

    with exit_codes():
        if check and out is None:
            raise ConfigError(["--check: compares a file; name it with --out"])
        statement = conformance_statement(read_config(config))
        if out is None:
            typer.echo(statement, nl=False)
            return
        try:
            if not check:
                out.write_text(statement, encoding="utf-8")
            elif out.read_text(encoding="utf-8") != statement:
                typer.echo(f"{out} is not what the program states; write it anew without --check", err=True)
                sys.exit(FAILED)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                [f"--out {out}: {error.strerror if isinstance(error, OSError) else 'no UTF-8'}"]
            ) from error
