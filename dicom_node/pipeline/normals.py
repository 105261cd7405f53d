"""Fetches normals for a bank out of an archive into a private folder; they never enter the node.

A query is an archive's name and conditions: ``pacs studies=normals.txt`` (a file of Study Instance UIDs, one a line) or
``pacs from=2025-01-01 to=2025-03-31 modality=DX most=2000``. Patients are told apart by a keyed hash.
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dicom_node.domain.errors import BankError, ConfigError, InvalidIdentifierError, OutOfResourcesError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.retrieval import Archive
from dicom_node.pipeline import fetching
from dicom_node.pipeline.fetching import CHEST_MODALITIES, Archivist, Asked
from dicom_node.pipeline.rebuild import hashed_patient
from dicom_node.worklist.found import StudyFound

log = logging.getLogger(__name__)

MOST = 20_000
_MOST_A_DAY = 5000
_KEYS = ("studies", "from", "to", "modality", "most")
_SHAPE = "write: ARCHIVE studies=FILE, or ARCHIVE from=2025-01-01 to=2025-03-31 modality=CR,DX most=2000"


@dataclass(frozen=True, slots=True)
class NormalsQuery:
    """Which studies of which archive are taken for normals; either the UIDs or both dates are set."""

    archive: str
    uids: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    modalities: tuple[str, ...] = CHEST_MODALITIES
    most: int = 2000

    @classmethod
    def parse(cls, text: str) -> NormalsQuery:
        """Return what a text stands for.

        Raises
        ------
        ConfigError
            If it is no such query, or its file cannot be read or holds something that is no UID.
        """
        archive, *conditions = text.split()[:10] or [""]
        said = dict(one.partition("=")[::2] for one in conditions)
        unknown = [key for key in said if key not in _KEYS]
        if not archive or "=" in archive or unknown or len(said) != len(conditions):
            raise ConfigError([f"--from-pacs: {_SHAPE}"])
        if ("studies" in said) == ("from" in said and "to" in said):
            raise ConfigError([f"--from-pacs: it needs studies=, or from= and to=; {_SHAPE}"])
        modalities = tuple(code for code in said.get("modality", "").upper().split(",") if code)
        try:
            most = int(said.get("most", "2000"))
            days = [date.fromisoformat(said[key]) if key in said else None for key in ("from", "to")]
        except ValueError:
            raise ConfigError([f"--from-pacs: most= is a number, from= and to= are days; {_SHAPE}"]) from None
        if not 1 <= most <= MOST:
            raise ConfigError([f"--from-pacs: most is {most}; 1 to {MOST} would be right"])
        uids = _uids(Path(said["studies"]), most) if "studies" in said else ()
        return cls(archive, uids, days[0], days[1], modalities or CHEST_MODALITIES, most)

    @property
    def source(self) -> str:
        """What the manifest says of where the normals came from."""
        if self.uids:
            return f"archive {self.archive}, {len(self.uids)} studies by list"
        return f"archive {self.archive}, {','.join(self.modalities)} of {self.first} to {self.last}"


def gather(
    archivist: Archivist,
    archive: Archive,
    query: NormalsQuery,
    files: Callable[[str], Mapping[str, Path]],
    table: Path,
    key: bytes,
    pause: Callable[[float], object],
) -> tuple[int, int]:
    """Fetch the normals and write a CSV of them: path and hashed patient.

    Parameters
    ----------
    files
        Returns the files that were fetched of a study, by SOP Instance UID.

    Returns
    -------
    int, int
        Studies that are whole, and those that could not be had, which are left out.

    Raises
    ------
    BankError
        If there is none.
    DestinationAwayError, DestinationRefusedError
        If the archive cannot be asked what it has.
    """
    whole = failed = 0
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "patient_id"])
        studies = list(_studies(archivist, archive, query))
        for row in fetching.fetch_all(archivist, archive, studies, pause):
            if not row["complete"]:
                failed += 1
                log.warning(
                    "a study is left out of the normals",
                    extra={"study_instance_uid": row["study_instance_uid"], "reason": row["reason"]},
                )
                continue
            whole += 1
            study = row["study_instance_uid"]
            for path in files(study).values():
                writer.writerow([str(path), hashed_patient(key, path, study)])
    if not whole:
        raise BankError(f"no normals came from {query.source}: {failed} studies could not be had")
    return whole, failed


def room(folder: Path, reserve: int) -> Callable[[], None]:
    """Return what raises OutOfResourcesError where the folder's disk has less than `reserve` bytes left."""

    def require_space() -> None:
        free = shutil.disk_usage(folder).free
        if free < reserve:
            raise OutOfResourcesError(
                f"{free // 1_000_000} MB are free where normals are fetched to; set TMPDIR to a larger disk"
            )

    return require_space


def _studies(archivist: Archivist, archive: Archive, query: NormalsQuery) -> Iterator[StudyFound]:
    if query.uids:
        yield from (StudyFound(uid) for uid in query.uids)
        return
    asked = Asked(first=query.first, last=query.last, modalities=query.modalities)
    found = 0
    for day, studies, more in fetching.find_by_day(archivist, archive, asked, _MOST_A_DAY):
        if more:
            raise BankError(f"archive {archive.name} has more than {_MOST_A_DAY} studies of {day}")
        for study in studies[: query.most - found]:
            found += 1
            yield study
        if found >= query.most:
            return


def _uids(path: Path, most: int) -> tuple[str, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            lines = [line.strip() for line in file.read(MOST * 80).splitlines()]
        found = tuple(dict.fromkeys(check_uid(line) for line in lines if line and not line.startswith("#")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--from-pacs: {path} cannot be read ({type(error).__name__})"]) from None
    except InvalidIdentifierError as error:
        raise ConfigError([f"--from-pacs: {path}: {error}"]) from None
    if not 1 <= len(found) <= most:
        raise ConfigError([f"--from-pacs: {path} names {len(found)} studies; 1 to most={most} would be right"])
    return found
