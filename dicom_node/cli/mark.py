"""``worklist mark``: a person's word about a study."""

from __future__ import annotations

import getpass
from typing import Annotated, Literal

import typer

from dicom_node.cli.options import ConfigPath, exit_codes, read_config
from dicom_node.domain.audit import Setting


def mark(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    word: Annotated[
        Literal["normal", "abnormal", "clear"], typer.Argument(help="What it is; clear takes it back.")
    ],
    by: Annotated[str, typer.Option("--by", help="Who says so; by default the user of this machine.")] = "",
    config: ConfigPath = None,
) -> None:
    """Note that a study is normal or abnormal; `bank rebuild --marked-normal` builds from the normal ones."""
    from dicom_node import node
    from dicom_node.pipeline import admin

    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(
            settings, "worklist mark", word, setting=Setting.RESTRICTED, study_instance_uid=study
        ),
    ):
        admin.mark(opened.engine, study, word, by.strip() or getpass.getuser(), node.now())
        typer.echo(f"study {study}: {'no mark any more' if word == 'clear' else f'marked {word}'}")
