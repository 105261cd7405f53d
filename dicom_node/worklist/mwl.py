"""Modality Worklist as its user (PS3.4 annex K): what is scheduled. Knows no database.

Answers become checked values; the patient's attributes, which a worklist is full of, are neither asked for nor kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.domain import urgency
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.expectation import Procedure
from dicom_node.domain.scheduled import ScheduledProcedure
from dicom_node.domain.types import Destination
from dicom_node.worklist import found, messages_in
from dicom_node.worklist.connect import Connect

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
MOST = 2000
"""Entries that are looked at."""

_PENDING = (0xFF00, 0xFF01)


def scheduled(
    connect: Connect,
    provider: Destination,
    *,
    days: tuple[date, date],
    modalities: Sequence[str],
    stations: Sequence[str],
    zone: tzinfo | None,
    timeout: float,
) -> list[ScheduledProcedure]:
    """Return what is scheduled.

    Parameters
    ----------
    days
        The first and the last.
    modalities, stations
        Of these only; each combination is a query of its own, since lists do not match (PS3.4 C.2.2.2). None at all
        is no condition.
    zone
        Of the provider's times; None for the machine's own.

    Raises
    ------
    DestinationAwayError, NotOfferedError, DestinationRefusedError
        If it cannot be asked now, or not at all.
    """
    context = build_context(MODALITY_WORKLIST, [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)])
    seen: dict[str, ScheduledProcedure] = {}
    with connect(provider, [context], timeout=timeout) as association:
        messages_in.install(association)
        for modality in modalities or ("",):
            for station in stations or ("",):
                for match in _matches(association, provider, _query(days, modality, station)):
                    try:
                        one = _entry(match, zone)
                    except found.BROKEN:
                        continue
                    if one is not None:
                        seen[one.key] = one
                    if len(seen) > MOST:  # none is left out: who follows takes what is not listed for withdrawn
                        association.abort()
                        raise _too_many(provider)
    return list(seen.values())


def _query(days: tuple[date, date], modality: str, station: str) -> Dataset:
    step = Dataset()
    step.Modality = modality
    step.ScheduledStationAETitle = station
    step.ScheduledProcedureStepStartDate = "-".join(day.strftime("%Y%m%d") for day in days)
    step.ScheduledProcedureStepStartTime = ""
    step.ScheduledProcedureStepID = ""
    code = Dataset()
    code.CodeValue = code.CodingSchemeDesignator = code.CodeMeaning = ""
    query = Dataset()
    query.AccessionNumber = ""
    query.StudyInstanceUID = ""
    query.RequestedProcedureID = ""
    query.RequestedProcedurePriority = ""
    query.RequestedProcedureCodeSequence = [code]
    query.ScheduledProcedureStepSequence = [step]
    return query


def _matches(association: Association, provider: Destination, query: Dataset) -> list[Dataset]:
    name = _where(provider)
    matches: list[Dataset] = []
    try:
        for answer, match in association.send_c_find(query, MODALITY_WORKLIST):
            status = answer.get("Status")
            if status is None:
                raise DestinationAwayError(f"{name} ended the association at a query of its worklist")
            if status in _PENDING:
                if match is not None:
                    matches.append(match)
                if len(matches) > MOST:
                    association.abort()
                    raise _too_many(provider)
            elif 0xA700 <= status <= 0xA7FF or 0xC000 <= status <= 0xCFFF:
                raise DestinationAwayError(f"{name} answered 0x{status:04X} to a query of its worklist")
            elif status != 0:
                raise DestinationRefusedError(
                    f"{name} answered 0x{status:04X} to a query of its worklist; 0x0000 would be right"
                )
    except RuntimeError as error:
        raise DestinationAwayError(f"{name} ended the association before a query of its worklist") from error
    return matches


def _where(provider: Destination) -> str:
    return f"{provider.name} ({provider.ae_title} at {provider.host}:{provider.port})"


def _too_many(provider: Destination) -> DestinationRefusedError:
    return DestinationRefusedError(
        f"{_where(provider)} says that more than {MOST} procedures are scheduled; state modalities or stations, or "
        "ask for fewer days"
    )


def _entry(match: Dataset, zone: tzinfo | None) -> ScheduledProcedure | None:
    steps = match.get("ScheduledProcedureStepSequence") or [Dataset()]
    step = steps[0]
    study = found.uid(match.get("StudyInstanceUID"))
    accession = str(match.get("AccessionNumber") or "").strip()[:16]
    if not (study or accession):
        return None  # nothing that an arriving study could be known by
    names = (match.get("RequestedProcedureID"), step.get("ScheduledProcedureStepID"))
    key = "/".join(str(name or "").strip()[:16] for name in names)
    return ScheduledProcedure(
        key=f"{study}/{key}",
        study_instance_uid=study,
        accession_number=accession,
        due_at=_moment(step, zone),
        priority=urgency.stated(str(match.get("RequestedProcedurePriority") or "")),
        procedure=_procedure(match),
    )


def _moment(step: Dataset, zone: tzinfo | None) -> datetime | None:
    day = str(step.get("ScheduledProcedureStepStartDate") or "")
    time = str(step.get("ScheduledProcedureStepStartTime") or "").partition(".")[0].replace(":", "")
    try:
        begins = datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007 - the zone follows
        clock = timedelta(hours=int(time[0:2] or 0), minutes=int(time[2:4] or 0), seconds=int(time[4:6] or 0))
    except ValueError:
        return None
    local = begins + clock
    return local.astimezone() if zone is None else local.replace(tzinfo=zone)


def _procedure(match: Dataset) -> Procedure | None:
    codes = match.get("RequestedProcedureCodeSequence") or ()
    if not codes:
        return None
    first = codes[0]
    value, scheme, meaning = (
        str(first.get(keyword) or "").strip()
        for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    )
    return (value[:16], scheme[:16], meaning[:64]) if value and scheme else None
