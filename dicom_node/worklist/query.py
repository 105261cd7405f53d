"""C-FIND as its user, Study Root, at STUDY, SERIES and IMAGE level (PS3.4 C.4.1, C.6.2). Knows no files.

Answers become checked values; what an archive says beyond them, patients' names for instance, is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NotOfferedError
from dicom_node.domain.retrieval import Archive
from dicom_node.worklist import found, messages_in
from dicom_node.worklist.connect import Connect, peer_of, where
from dicom_node.worklist.found import ImageFound, SeriesFound, StudyFound

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

MOST = 5000
"""Matches of one query that are looked at; an archive that has more is asked for less, by date for instance."""

_PENDING = (0xFF00, 0xFF01)
_RETRYABLE = (0x0110, 0x0213)
_CANCEL_PATIENCE = 1000

_Found = TypeVar("_Found")


def find_context() -> PresentationContext:
    """Return what is proposed for a query."""
    return build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))


def studies(
    connect: Connect, archive: Archive, keys: Mapping[str, str], most: int = MOST
) -> tuple[list[StudyFound], bool]:
    """Find studies.

    Parameters
    ----------
    keys
        Keywords of matching keys and what is matched, as PS3.4 C.2.2.2 has it: wildcards ``*`` and ``?``, ranges of
        dates ``20260101-20260131``, lists of UIDs with backslashes.
    most
        Matches after which no more are wanted.

    Returns
    -------
    list of StudyFound, bool
        What was found, and whether there is more than that.

    Raises
    ------
    NotOfferedError
        If it offers no query.
    DestinationAwayError, DestinationRefusedError
        If it cannot be asked now, or not at all.
    """
    with connect(peer_of(archive), [find_context()], timeout=archive.timeout) as association:
        messages_in.install(association)
        return find_studies(archive, association, keys, most)


def find_studies(
    archive: Archive, association: Association, keys: Mapping[str, str], most: int = MOST
) -> tuple[list[StudyFound], bool]:
    """Find studies on an association that is open; as `studies`."""
    wanted = {"StudyDate": "", "ModalitiesInStudy": "", "NumberOfStudyRelatedInstances": "", "PatientID": ""}
    query = _query("STUDY", {**wanted, "StudyInstanceUID": "", **keys})

    def value(match: Dataset) -> StudyFound | None:
        study = found.uid(match.get("StudyInstanceUID"))
        if not study:
            return None
        return StudyFound(
            study,
            found.date(match.get("StudyDate")),
            found.codes(_many(match, "ModalitiesInStudy")),
            found.number(match.get("NumberOfStudyRelatedInstances")),
            str(match.get("PatientID") or "")[:64],
        )

    return _matches(archive, association, query, value, most)


def find_series(archive: Archive, association: Association, study_instance_uid: str) -> list[SeriesFound]:
    """Find the series of a study; as `studies`."""
    query = _query(
        "SERIES",
        {
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": "",
            "Modality": "",
            "NumberOfSeriesRelatedInstances": "",
        },
    )

    def value(match: Dataset) -> SeriesFound | None:
        series = found.uid(match.get("SeriesInstanceUID"))
        modality = next(iter(found.codes(match.get("Modality"))), "")
        images = found.number(match.get("NumberOfSeriesRelatedInstances"))
        return SeriesFound(series, modality, images) if series else None

    return _whole(archive, "series", _matches(archive, association, query, value, MOST))


def find_images(
    archive: Archive, association: Association, study_instance_uid: str, series: SeriesFound
) -> list[ImageFound]:
    """Find the objects of a series; as `studies`."""
    query = _query(
        "IMAGE",
        {
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": series.series_instance_uid,
            "SOPInstanceUID": "",
            "SOPClassUID": "",
        },
    )

    def value(match: Dataset) -> ImageFound | None:
        image = found.uid(match.get("SOPInstanceUID"))
        sop_class = found.uid(match.get("SOPClassUID"))
        return ImageFound(series.series_instance_uid, image, sop_class, series.modality) if image else None

    return _whole(archive, "images", _matches(archive, association, query, value, MOST))


def _query(level: str, keys: Mapping[str, str]) -> Dataset:
    query = Dataset()
    if not all(value.isascii() for value in keys.values()):
        query.SpecificCharacterSet = "ISO_IR 192"
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _matches(
    archive: Archive,
    association: Association,
    query: Dataset,
    value: Callable[[Dataset], _Found | None],
    most: int,
) -> tuple[list[_Found], bool]:
    if not any(one.abstract_syntax == STUDY_ROOT_FIND for one in association.accepted_contexts):
        raise NotOfferedError(f"{where(archive)} offers no query (Study Root C-FIND)")
    kept: dict[_Found, None] = {}
    beyond = 0
    try:
        for answer, match in association.send_c_find(query, STUDY_ROOT_FIND):
            status = answer.get("Status")
            if status is None:
                raise lost(archive, "a query")
            if status not in _PENDING:
                if status == 0 or (beyond and status == 0xFE00):
                    break
                raise refused(archive, "a query", int(status))
            if len(kept) >= most:
                beyond += 1
                if beyond == 1:
                    association.send_c_cancel(1, query_model=STUDY_ROOT_FIND)
                elif beyond > _CANCEL_PATIENCE:  # it does not listen
                    association.abort()
                    break
                continue
            one = None if match is None else _read(match, value)
            if one is not None:
                kept[one] = None
    except RuntimeError as error:
        raise lost(archive, "a query") from error
    return list(kept), beyond > 0


def _read(match: Dataset, value: Callable[[Dataset], _Found | None]) -> _Found | None:
    try:
        return value(match)
    except found.BROKEN:
        return None


def _whole(archive: Archive, what: str, answer: tuple[list[_Found], bool]) -> list[_Found]:
    matches, more = answer
    if more:
        raise DestinationRefusedError(
            f"{where(archive)} says that there are more than {MOST} {what} where a chest study has a few"
        )
    return matches


def _many(match: Dataset, keyword: str) -> Any:
    value = match.get(keyword)
    return list(value) if value is not None and not isinstance(value, str) else value


def lost(archive: Archive, what: str) -> DestinationAwayError:
    """Return the error of an archive that ended the association, or did not answer."""
    return DestinationAwayError(
        f"{where(archive)} ended the association at {what}, or did not answer within {archive.timeout:g} s"
    )


def refused(archive: Archive, what: str, status: int) -> DestinationAwayError | DestinationRefusedError:
    """Return the error that a failure status stands for (PS3.4 tables C.4-1 to C.4-3, PS3.7 annex C)."""
    said = f"{where(archive)} answered 0x{status:04X} to {what}"
    if 0xA700 <= status <= 0xA7FF or 0xC000 <= status <= 0xCFFF or status in _RETRYABLE:
        return DestinationAwayError(
            f"{said}: it is out of resources, or could not do it; find the cause in its log"
        )
    if status == 0x0124:
        return DestinationRefusedError(f"{said}: not authorised; it must allow this node's AE title to ask")
    return DestinationRefusedError(f"{said}; 0x0000 would be right")
