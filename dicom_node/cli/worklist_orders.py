"""``worklist retry``, ``cancel``, ``rerun`` and ``deliver``: a person's hand on work, one piece or many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, moment, read_config
from dicom_node.cli.worklist import OfVerdict, Since, Until, print_rows
from dicom_node.config import Config
from dicom_node.domain.audit import Setting
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind, Verdict

Items = Annotated[list[int] | None, typer.Argument(help="Ids of work items, as `list` and `show` print them.")]
Studies = Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="Only this kind of work.")]
ToDestination = Annotated[str, typer.Option(help="Only deliveries to this destination.")]
OfStudy = Annotated[str, typer.Option(help="Only work for this study.")]
Changed = Annotated[str, typer.Option(help="Only items that last changed at this moment or later, local time.")]
ChangedBefore = Annotated[
    str, typer.Option(help="Only items that last changed before this moment, local time.")
]
Everything = Annotated[bool, typer.Option("--all", help="All of them, where no other condition is given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each.")]
AreFailed = Annotated[bool, typer.Option("--failed", help="Items that have failed.")]


def retry(
    item: Items = None,
    failed: AreFailed = False,
    canceled: Annotated[bool, typer.Option("--canceled", help="Items that were canceled.")] = False,
    kind: OfKind = None,
    destination: ToDestination = "",
    study: OfStudy = "",
    since: Changed = "",
    until: ChangedBefore = "",
    everything: Everything = False,
    dry_run: DryRun = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Schedule FAILED or CANCELED items again; an analysis already answered gets a new revision.

    Items are named, or meant by conditions: those that failed, unless --canceled says otherwise. JSON: a list of
    {"study_instance_uid", "item", "kind", "revision", "destination", "state" (before), "became" ("scheduled" or
    "refused"), "as_item", "as_revision", "reason"}.
    """
    states = [s for s, asked in ((State.FAILED, failed or not canceled), (State.CANCELED, canceled)) if asked]
    meant = failed or canceled or everything
    _order_items(
        "retry", item, _Meant(states, meant, kind, destination, study, since, until), dry_run, config, as_json
    )


def cancel(
    item: Items = None,
    failed: AreFailed = False,
    scheduled: Annotated[bool, typer.Option("--scheduled", help="Items that wait.")] = False,
    kind: OfKind = None,
    destination: ToDestination = "",
    study: OfStudy = "",
    since: Changed = "",
    until: ChangedBefore = "",
    everything: Everything = False,
    dry_run: DryRun = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Cancel items that are not finished.

    Items are named, or meant by conditions: those that wait or failed, unless --failed or --scheduled says otherwise;
    one that is being done has to be named. JSON: as for `retry`; "became" is "canceled" or "refused".
    """
    either = failed or scheduled
    states = [s for s, on in ((State.SCHEDULED, scheduled), (State.FAILED, failed)) if on or not either]
    meant = either or everything
    _order_items(
        "cancel", item, _Meant(states, meant, kind, destination, study, since, until), dry_run, config, as_json
    )


def rerun(
    study: Studies = None,
    bank: Annotated[
        str, typer.Option(help="Analyse with this bank alone; by default with the active ones.")
    ] = "",
    not_analysed: Annotated[
        bool, typer.Option("--not-analysed", help="Every study that was not analysed for want of a bank.")
    ] = False,
    verdict: OfVerdict = None,
    since: Since = "",
    until: Until = "",
    everything: Everything = False,
    dry_run: DryRun = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Analyse studies again: a new revision of the same images, whose report supersedes the earlier ones.

    Studies are named, or meant by conditions; the latter wait behind what comes in. One whose analysis still waits is
    not scheduled twice. JSON: a list of {"study_instance_uid", "as_item", "as_revision", "became" ("scheduled",
    "waiting" or "refused"), "reason"}.
    """
    from dicom_node import node
    from dicom_node.pipeline import banks, orders
    from dicom_node.queue.items import LOW, ROUTINE
    from dicom_node.store.selection import Wanted

    with exit_codes(), node.open_node(settings := read_config(config)) as opened:
        wanted = Wanted(verdict, not_analysed, moment(since, "--since"), moment(until, "--until"))
        _one_way(study, everything or wanted != Wanted(), "studies")
        banks.require(settings.score.banks, bank, settings.score.kinds[0])
        carried_out = orders.Orders(
            opened.engine,
            node.now,
            _noting(settings, "worklist rerun", bank or "active banks"),
            dry_run=dry_run,
        )
        chosen = study or orders.find_studies(opened.engine, wanted)
        rows = carried_out.rerun(chosen, bank, ROUTINE if study else LOW)
        _tell(rows, as_json=as_json, dry_run=dry_run, named=bool(study))


def deliver(
    destination: Annotated[str, typer.Option(help="Name of a configured destination.")],
    since: Annotated[str, typer.Option(help="Only reports made at this moment or later, local time.")] = "",
    verdict: Annotated[Verdict | None, typer.Option(help="Only reports that say this.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Only the newest report of each study.")] = False,
    dry_run: DryRun = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Deliver earlier reports to a destination that never got them, such as a new one, behind what comes in.

    JSON: a list of {"study_instance_uid", "revision", "as_item", "became" ("scheduled"; "sent" before; "waiting": it
    has an item, in whatever state; "gone": its bytes were removed), "reason"}.
    """
    from dicom_node import node
    from dicom_node.pipeline import orders

    with exit_codes(), node.open_node(settings := read_config(config)) as opened:
        if destination not in opened.destinations:
            known = ", ".join(sorted(opened.destinations)) or "none"
            raise ConfigError([f"--destination: {destination!r} is not configured; configured: {known}"])
        carried_out = orders.Orders(opened.engine, node.now, dry_run=dry_run)
        order = partial(
            carried_out.deliver, destination, since=moment(since, "--since"), verdict=verdict, newest=newest
        )
        if dry_run:
            rows = order()
        else:
            with _noting(settings, "worklist deliver", f"destination/{destination}")(""):
                rows = order()
        _tell(rows, as_json=as_json, dry_run=dry_run, named=False)


@dataclass(frozen=True, slots=True)
class _Meant:
    """Which items are meant where none is named; `given` says that a state was asked for, or all of them."""

    states: Sequence[State]
    given: bool
    kind: Kind | None
    destination: str
    study: str
    since: str
    until: str


def _order_items(
    what: Literal["retry", "cancel"],
    named: Sequence[int] | None,
    meant: _Meant,
    dry_run: bool,
    config: ConfigPath,
    as_json: bool,
) -> None:
    from dicom_node import node
    from dicom_node.pipeline import orders

    with exit_codes(), node.open_node(settings := read_config(config)) as opened:
        conditions = (meant.given, meant.kind, meant.destination, meant.study, meant.since, meant.until)
        _one_way(named, any(conditions), "items")
        chosen = named or orders.find_items(
            opened.engine,
            meant.states,
            kind=meant.kind,
            destination=meant.destination,
            study_instance_uid=meant.study,
            since=moment(meant.since, "--since"),
            until=moment(meant.until, "--until"),
        )
        rows = []
        for item in chosen:
            noting = _noting(settings, f"worklist {what}", f"work-item/{item}")
            carried_out = orders.Orders(opened.engine, node.now, noting, dry_run=dry_run)
            rows += (carried_out.retry if what == "retry" else carried_out.cancel)([item])
        _tell(rows, as_json=as_json, dry_run=dry_run, named=bool(named))


def _one_way(named: Sequence[Any] | None, conditions: bool, what: str) -> None:
    """See that either some are named, or conditions say which are meant."""
    if bool(named) == conditions:
        told = (
            "are named, and conditions are given: one or the other"
            if named
            else "are not named; --all means all"
        )
        raise ConfigError([f"{what} {told}"])


def _noting(settings: Config, action: str, subject: str) -> Any:
    from dicom_node import node

    def noting(study: str) -> AbstractContextManager[None]:
        return node.administering(
            settings, action, subject, setting=Setting.RESTRICTED, study_instance_uid=study
        )

    return noting


def _tell(rows: Sequence[dict[str, Any]], *, as_json: bool, dry_run: bool, named: bool) -> None:
    """Print what became of each that was named, else how many became what, and why some were refused.

    One that was named and refused is work that failed.
    """
    from dicom_node.pipeline.orders import counts

    refused = [row for row in rows if row["became"] == "refused"]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif named:
        for row in rows:
            if row["became"] != "refused":
                typer.echo(_sentence(row))
    else:
        known = [column for column in ("kind", "destination", "state", "became") if rows and column in rows[0]]
        print_rows(counts(rows, *known))
    if not as_json:
        for row in refused:
            typer.echo(f"error: {row['reason']}", err=True)
        if dry_run:
            typer.echo("dry run: nothing is changed")
    if named and refused:
        raise SystemExit(FAILED)


def _sentence(row: dict[str, Any]) -> str:
    study = f"study {row['study_instance_uid']}"
    if row["became"] == "canceled":
        return f"item {row['item']} is canceled"
    if row["as_item"] is None:
        return (
            f"images are arriving for revision {row['as_revision']} of the study; "
            "it is analysed once they are complete"
        )
    if "item" in row:
        return f"scheduled as item {row['as_item']}"
    if row["became"] == "waiting":
        return (
            f"{study}: item {row['as_item']} waits or is being done already, for revision {row['as_revision']}"
        )
    return f"{study}: scheduled as item {row['as_item']}, revision {row['as_revision']}"
