"""``retrieve`` and ``backfill``: images from archives, now or in the quiet hours."""

from __future__ import annotations

import json
import sys
import time
from datetime import date, datetime
from typing import Annotated, Any

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config
from dicom_node.cli.worklist import print_rows
from dicom_node.domain.audit import StudiesListed
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.urgency import LOW, NAMES

From = Annotated[str, typer.Option("--from", help="Name of an archive in the configuration.")]
Priority = Annotated[str, typer.Option(help="STAT, HIGH, ROUTINE or LOW: when what came is analysed.")]
Modality = Annotated[str, typer.Option(help="Only studies with one of these, such as CR,DX.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")]


def retrieve(
    archive: From,
    patient: Annotated[
        str,
        typer.Option(
            help="Patient ID. Other users of this machine see it in the list of processes: write - to give "
            "it on standard input instead."
        ),
    ] = "",
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    accession: Annotated[
        str, typer.Option(help="Accession number; - reads it from standard input, as with --patient.")
    ] = "",
    day: Annotated[
        str, typer.Option("--date", help="Study date, 2026-01-31, or a range, 2026-01-01..2026-01-31.")
    ] = "",
    modality: Modality = "",
    priors: Annotated[
        bool,
        typer.Option("--priors", help="Instead of --study, the same patient's earlier chest studies."),
    ] = False,
    most: Annotated[
        int, typer.Option(min=1, max=5000, help="At most so many studies; more is an error.")
    ] = 100,
    priority: Priority = NAMES[LOW],
    dry_run: DryRun = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Fetch studies from an archive into the node, where they are analysed like those that are sent to it.

    Keeps to the archive's images_per_minute, not to its hours. Shows nothing of a patient.

    JSON: a list of {"study_instance_uid", "study_date", "modalities", "images"} and, unless --dry-run, "stored",
    "failed", "expected", "complete", "reason".
    """
    from dicom_node import node
    from dicom_node.pipeline import fetching

    if patient == "-" and accession == "-":
        raise typer.BadParameter("only one of --patient and --accession can come from standard input")
    first, last = _days(day, "--date")
    with exit_codes():
        asked = fetching.Asked(_secret(patient), study, _secret(accession), first, last, _modalities(modality))
        if not asked.anything:
            raise typer.BadParameter("say which studies: --patient, --study, --accession or --date")
        if priors and not study:
            raise typer.BadParameter("--priors needs --study")
        how_urgent = _priority(priority)
        with node.open_node(settings := read_config(config)) as opened:
            source = node.archive_named(settings, archive)
            opened.audit(
                StudiesListed(node.now(), node.person(), f"retrieve --from {archive}{' --dry-run' * dry_run}")
            )
            archivist = node.fetcher(opened)
            if priors:
                found, more = fetching.priors(archivist, source, study, most), False
            else:
                found, more = fetching.find(archivist, source, asked, most)
            if more:
                raise ConfigError([f"more than {most} studies match; ask for less, or raise --most"])
            rows: list[dict[str, Any]] = []
            if dry_run:
                rows = [fetching.described(one) for one in found]
            else:
                announce = node.announcing(opened, how_urgent)
                for row in fetching.fetch_all(archivist, source, found, time.sleep, announce):
                    rows.append(row)
                    if not as_json:
                        _tell(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif dry_run:
        print_rows([{**row, "modalities": ",".join(row["modalities"])} for row in rows])
    elif not rows:
        typer.echo("nothing matches")
    if not dry_run and any(not row["complete"] for row in rows):
        sys.exit(FAILED)


def backfill(
    archive: Annotated[str, typer.Option(help="Name of an archive in the configuration.")] = "",
    first: Annotated[str, typer.Option("--from", help="First study date, such as 2025-01-01.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last study date.")] = "",
    modality: Modality = "CR,DX",
    priority: Priority = NAMES[LOW],
    most_a_day: Annotated[
        int, typer.Option(min=1, max=5000, help="A day with more studies than this is an error.")
    ] = 2000,
    dry_run: DryRun = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and what failed.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Fetch nothing more, of --archive or of all.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Have an archive's studies of a period fetched and analysed, at low priority, by `serve`.

    The archive is asked which studies it has; `serve` then fetches them one by one within its hours,
    images_per_minute and studies_at_a_time, whatever is restarted meanwhile. Asking again is harmless: what was
    fetched is left alone, what failed is tried again.

    JSON: {"found", "due", "days"}; with --status {"archives": [...], "failures": [...]}; with --cancel {"canceled"}.
    """
    from dicom_node import node
    from dicom_node.pipeline import fetching

    with exit_codes(), node.open_node(settings := read_config(config)) as opened:
        if archive:
            source = node.archive_named(settings, archive)
        if status:
            _tell_status(fetching.progress(opened.engine), as_json)
            return
        if cancel:
            canceled = fetching.cancel(opened.engine, archive, node.now())
            typer.echo(json.dumps({"canceled": canceled}) if as_json else f"canceled: {canceled} studies")
            return
        if not (archive and first and last):
            raise typer.BadParameter("say --archive, --from and --to, or --status, or --cancel")
        begin, end = _day(first, "--from"), _day(last, "--to")
        if begin > end:
            raise ConfigError([f"--from {first} is later than --to {last}"])
        how_urgent = _priority(priority)
        opened.audit(StudiesListed(node.now(), node.person(), f"backfill {archive} {begin} {end}"))
        asked = fetching.Asked(first=begin, last=end, modalities=_modalities(modality))
        found = due = days = 0
        for when, studies, more in fetching.find_by_day(node.fetcher(opened), source, asked, most_a_day):
            if more:
                raise ConfigError([f"{when}: more than {most_a_day} studies; raise --most-a-day"])
            days, found = days + 1, found + len(studies)
            uids = [one.study_instance_uid for one in studies]
            if not dry_run:
                due += fetching.ask_for(opened.engine, archive, uids, how_urgent, node.now())
            if studies and not as_json:
                typer.echo(f"{when}: {len(studies)} studies")
        if as_json:
            typer.echo(json.dumps({"found": found, "due": due, "days": days}))
        else:
            would = "would be" if dry_run else "are"
            typer.echo(
                f"{found} studies in {days} days; {found if dry_run else due} {would} due, `serve` fetches them"
            )


def _tell(row: dict[str, Any]) -> None:
    failed = "" if row["complete"] else f", not complete: {row['reason']}"
    typer.echo(f"{row['study_instance_uid']}  {row['study_date']}  {row['stored']} images{failed}")


def _tell_status(told: dict[str, list[dict[str, Any]]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told, indent=2, default=str))
        return
    print_rows(told["archives"])
    if told["failures"]:
        typer.echo("\nfailed last")
        print_rows(told["failures"])


def _secret(value: str) -> str:
    return sys.stdin.readline().rstrip("\r\n") if value == "-" else value


def _modalities(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(one.strip().upper() for one in text.split(",") if one.strip()))
    wrong = [one for one in found if not (one.isascii() and one.isalnum() and len(one) <= 16)]
    if wrong:
        raise ConfigError(["--modality: write codes such as CR,DX"])
    return found


def _priority(text: str) -> int:
    numbers = {name: number for number, name in NAMES.items()}
    if text.upper() not in numbers:
        raise ConfigError([f"--priority: {text!r} is none of {', '.join(numbers)}"])
    return numbers[text.upper()]


def _day(text: str, option: str) -> date:
    try:
        return datetime.strptime(text.replace("-", ""), "%Y%m%d").date()  # noqa: DTZ007 - a day, not a moment
    except ValueError:
        raise ConfigError([f"{option}: {text[:40]!r} is no day; write 2026-01-31"]) from None


def _days(text: str, option: str) -> tuple[date | None, date | None]:
    if not text:
        return None, None
    with exit_codes():
        first, dots, last = text.partition("..")
        return _day(first, option), _day(last if dots else first, option)
