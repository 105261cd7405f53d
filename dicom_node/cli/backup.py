"""``backup`` and ``restore``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.keep import deep_findings
from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config
from dicom_node.domain.audit import Setting
from dicom_node.domain.errors import ConfigError


def backup(
    target: Annotated[Path, typer.Argument(help="A new folder, or a new file whose name ends in .tar.")],
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Also the images received; large, and full of patients.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Write a backup while the node runs: database, reports, banks, settings. Secrets are not in it.

    JSON: {"target", "files", "bytes", "vanished"}.
    """
    from dicom_node import node

    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(settings, "backup", f"backup/{target.name}", setting=Setting.RESTRICTED),
    ):
        done = node.back_up(opened, target, with_images=with_images)
        if as_json:
            told = {
                "target": str(target),
                "files": done.files,
                "bytes": done.size,
                "vanished": list(done.vanished),
            }
            typer.echo(json.dumps(told, indent=2))
            return
        typer.echo(f"{target}: {done.files} files, {done.size / 1e6:.1f} MB")
        typer.echo("not in it: passwords, keys and certificates; the settings name their files")
        if not with_images:
            typer.echo("not in it: the images received; say --with-images, or copy the store's folder as well")


def restore(
    source: Annotated[Path, typer.Argument(help="A backup: the folder or the .tar file.")],
    into: Annotated[
        Path | None, typer.Option(help="Put everything below this folder, its settings included (SQLite).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where there is a node already; its database is set aside.")
    ] = False,
    config: ConfigPath = None,
) -> None:
    """Bring a node back from a backup into the places that --config names, or below --into; stop it first.

    Every hash is verified before anything is written. At the end the deep check says what is missing.
    """
    from dicom_node import node

    with exit_codes():
        if into is not None and config is not None:
            raise ConfigError(["--into: brings settings of its own; say either --into or --config"])
        manifest, settings = node.restore(source, lambda: read_config(config), into, overwrite=overwrite)
        with node.administering(settings, "restore", f"backup/{source.name}"):
            typer.echo(f"restored from the backup of {manifest['created_at']}, {len(manifest['files'])} files")
        if into is not None:
            typer.echo(f"settings: {into / 'config.toml'}")
        typer.echo(
            "everybody is logged out, and no token of a program and no link is good any more; "
            "see `dicom-node user list`: who was removed after the backup, or had another role, is as before"
        )
        findings = deep_findings(settings, repair=False)
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}")
        if not all(finding.ok for finding in findings):
            typer.echo("`dicom-node check --deep --repair` mends what can be mended")
            sys.exit(FAILED)
