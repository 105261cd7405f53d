"""What a person asks of an archive: which studies it has, and to have them here. Shows nothing of a patient.

A Patient ID lives in memory for as long as a query with it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationRefusedError, NodeError, NotFoundError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.store import retrievals
from dicom_node.worklist.found import StudyFound

CHEST_MODALITIES = ("CR", "DX")
_SPECIAL = frozenset("*?\\")


class Archivist(Protocol):
    """What can be asked of an archive; `worklist.retrieve.Retrieve` is one."""

    def __call__(self, archive: Archive, what: Fetch) -> Fetched:
        """Fetch; see `domain.retrieval.Fetcher`."""

    def find(self, archive: Archive, keys: Mapping[str, str], most: int) -> tuple[list[StudyFound], bool]:
        """Find studies; see `worklist.query.studies`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which studies are meant; what is "" or () matters not. Dates are DICOM's, both included.

    Raises
    ------
    InvalidIdentifierError
        If `study` is no UID.
    """

    patient: str = field(default="", repr=False)
    study: str = ""
    accession: str = field(default="", repr=False)
    first: date | None = None
    last: date | None = None
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.study:
            check_uid(self.study, "Study Instance UID")

    @property
    def anything(self) -> bool:
        """Whether it says anything of which studies are meant, beside their modality."""
        return bool(self.patient or self.study or self.accession or self.first or self.last)

    def queries(self) -> Iterator[dict[str, str]]:
        """Yield the matching keys of each query that it takes: one for each modality."""
        keys = {
            "PatientID": self.patient,
            "StudyInstanceUID": self.study,
            "AccessionNumber": self.accession,
            "StudyDate": _range(self.first, self.last),
        }
        for modality in self.modalities or ("",):
            yield {**{key: value for key, value in keys.items() if value}, "ModalitiesInStudy": modality}


def find(archivist: Archivist, archive: Archive, asked: Asked, most: int) -> tuple[list[StudyFound], bool]:
    """Find studies, by date; and whether there are more than `most`.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        If the archive cannot be asked.
    """
    found: dict[str, StudyFound] = {}
    more = False
    for keys in asked.queries():
        matches, beyond = archivist.find(archive, keys, most)
        more |= beyond
        for match in matches:
            fits = not asked.modalities or not match.modalities or set(match.modalities) & set(asked.modalities)
            if fits:
                found.setdefault(match.study_instance_uid, match)
    ordered = sorted(found.values(), key=lambda one: (one.study_date, one.study_instance_uid))
    return ordered[:most], more or len(ordered) > most


def find_by_day(
    archivist: Archivist, archive: Archive, asked: Asked, most_a_day: int
) -> Iterator[tuple[date, list[StudyFound], bool]]:
    """Find studies day by day, so that no answer is larger than an archive gives."""
    assert asked.first is not None  # noqa: S101 - for mypy; the caller's options require it
    assert asked.last is not None  # noqa: S101 - as above
    day = asked.first
    while day <= asked.last:
        one = Asked(asked.patient, asked.study, asked.accession, day, day, asked.modalities)
        matches, more = find(archivist, archive, one, most_a_day)
        yield day, matches, more
        day += timedelta(days=1)


def priors(archivist: Archivist, archive: Archive, study_instance_uid: str, most: int) -> list[StudyFound]:
    """Find the same patient's earlier chest studies, the newest first.

    Raises
    ------
    NotFoundError
        If the archive does not have the study, or does not say whose it is.
    DestinationRefusedError
        If the Patient ID cannot be asked for without meaning other patients, too.
    """
    matches, _ = archivist.find(archive, {"StudyInstanceUID": study_instance_uid}, 2)
    one = next((m for m in matches if m.study_instance_uid == study_instance_uid), None)
    if one is None or not one.patient_id.strip() or not one.study_date:
        raise NotFoundError(
            f"archive {archive.name} does not say whose study {study_instance_uid} is and of which day; "
            "without Patient ID and Study Date there are no priors"
        )
    if _SPECIAL & set(one.patient_id):
        raise DestinationRefusedError(
            f"the Patient ID of {study_instance_uid} holds a wildcard; a query with it would find other patients"
        )
    found: dict[str, StudyFound] = {}
    for modality in CHEST_MODALITIES:
        keys = {
            "PatientID": one.patient_id,
            "StudyDate": f"-{one.study_date}",
            "ModalitiesInStudy": modality,
        }
        for match in archivist.find(archive, keys, most + 50)[0]:
            same = match.patient_id.strip() == one.patient_id.strip()
            if same and match.study_instance_uid != study_instance_uid and match.study_date <= one.study_date:
                found.setdefault(match.study_instance_uid, match)
    return sorted(found.values(), key=lambda m: m.study_date, reverse=True)[:most]


def fetch_all(
    archivist: Archivist,
    archive: Archive,
    studies: Sequence[StudyFound],
    pause: Callable[[float], object],
    announce: Callable[[str, bool], None] = lambda _study, _open: None,
) -> Iterator[dict[str, Any]]:
    """Fetch studies one after the other, no faster than the archive's `images_per_minute`; yield what became of each.

    A study that cannot be had does not hold up the next one.
    """
    for number, study in enumerate(studies):
        row = described(study)
        try:
            announce(study.study_instance_uid, True)
            fetched = archivist(archive, Fetch(study.study_instance_uid))
            if fetched.complete:
                announce(study.study_instance_uid, False)
        except NodeError as error:
            yield {
                **row,
                "stored": 0,
                "failed": None,
                "expected": None,
                "complete": False,
                "reason": str(error),
            }
            continue
        yield {
            **row,
            "stored": fetched.stored,
            "failed": fetched.failed,
            "expected": fetched.expected,
            "complete": fetched.complete,
            "reason": fetched.reason,
        }
        if archive.images_per_minute and number + 1 < len(studies):
            pause(60.0 * fetched.stored / archive.images_per_minute)


def described(study: StudyFound) -> dict[str, Any]:
    """Return what may be shown of a study."""
    return {
        "study_instance_uid": study.study_instance_uid,
        "study_date": study.study_date,
        "modalities": list(study.modalities),
        "images": study.images,
    }


def ask_for(engine: Engine, archive: str, studies: Sequence[str], priority: int, at: datetime) -> int:
    """Have studies fetched by `serve`; return how many are due by that. Those that were fetched are left alone."""
    with writing(engine) as conn:
        return retrievals.add(conn, archive, studies, priority, at)


def progress(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return how far the studies are that were asked for, and which failed last."""
    with reading(engine) as conn:
        return {"archives": retrievals.counts(conn), "failures": retrievals.failures(conn, 20)}


def cancel(engine: Engine, archive: str, at: datetime) -> int:
    """Cancel what is due of an archive, "" for all; return how many studies."""
    with writing(engine) as conn:
        return retrievals.cancel(conn, archive, at)


def _range(first: date | None, last: date | None) -> str:
    if first is not None and first == last:
        return f"{first:%Y%m%d}"
    begin = f"{first:%Y%m%d}" if first else ""
    end = f"{last:%Y%m%d}" if last else ""
    return f"{begin}-{end}" if begin or end else ""
