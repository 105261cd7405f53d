"""The deep part of ``check``, and ``prune``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config

if TYPE_CHECKING:
    from dicom_node.config import Config
    from dicom_node.pipeline.deep import Seen
    from dicom_node.pipeline.readiness import Finding


def deep_findings(settings: Config, *, repair: bool) -> list[Finding]:
    """Return what the deep check finds, one finding a fault and one for the whole; shows progress on a terminal."""
    from dicom_node import node
    from dicom_node.pipeline.readiness import Finding

    with node.open_node(settings) as opened:
        amount = node.amount(opened)
        console = Console(stderr=True)
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("reading every file", total=amount.size)
            seen = list(
                node.deep_check(opened, repair=repair, looked_at=lambda size: progress.advance(task, size))
            )
    findings = [Finding(one.fault.code.value, one.mended, _told(one)) for one in seen]
    left = sum(not one.mended for one in seen)
    whole = f"{amount.images} images ({amount.size / 1e9:.1f} GB) and {amount.reports} reports read"
    outcome = f"{left} faults" if left == len(seen) else f"{len(seen)} faults, {left} of them left"
    return [
        *findings,
        Finding("deep check", not left, f"{whole}: {outcome if seen else 'every one is as it should be'}"),
    ]


def _told(seen: Seen) -> str:
    fault = seen.fault
    study = f" (study {fault.study_instance_uid})" if fault.study_instance_uid not in fault.what else ""
    return f"{fault.what}: {fault.detail}{study}" + (f"; {seen.done}" if seen.done else "")


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Remove the images of studies that are answered, delivered and older than `[store] retention_days`.

    Procedure steps that ended longer than `[receive] procedure_step_days` ago go, too.

    JSON: {"studies": [{"study_instance_uid", "images", "bytes", "why"}], "reports": [SOP Instance UIDs],
    "steps": number}.
    """
    from dicom_node import node

    with exit_codes(), node.open_node(read_config(config)) as opened:
        done = node.prune(opened, dry_run=dry_run)
        if as_json:
            studies = [
                {"study_instance_uid": s.study_instance_uid, "images": s.images, "bytes": s.size, "why": why}
                for s, why in done.studies
            ]
            told = {"studies": studies, "reports": list(done.reports), "steps": done.steps}
            typer.echo(json.dumps(told, indent=2))
            return
        word = "would be removed" if dry_run else "removed"
        for study, why in done.studies:
            typer.echo(f"{word}: {study.images} images of study {study.study_instance_uid}, {why}")
        studies_told = f"{len(done.studies)} studies ({done.size / 1e6:.1f} MB)"
        typer.echo(
            f"{word}: {studies_told}, {len(done.reports)} reports of earlier ones, {done.steps} procedure steps"
        )
