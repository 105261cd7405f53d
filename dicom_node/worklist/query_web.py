"""QIDO-RS as its user (PS3.18 10.6): what an archive on the web says it holds, as checked values. Bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests

from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.retrieval import Archive
from dicom_node.worklist import found
from dicom_node.worklist.connect import Web, peer_of, where
from dicom_node.worklist.found import ImageFound, StudyFound
from dicom_node.worklist.query import MOST

LARGEST_ANSWER = 32 * 1024 * 1024
_JSON = "application/dicom+json"
_STUDY, _SERIES, _IMAGE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_DATE, _MODALITIES, _MODALITY, _COUNT, _PATIENT = "00080020", "00080061", "00080060", "00201208", "00100020"


def studies(
    web: Web, archive: Archive, keys: Mapping[str, str], most: int = MOST
) -> tuple[list[StudyFound], bool]:
    """Find studies; as `query.studies`. Wildcards and ranges of dates are written as there."""
    asked = {key: value.replace("\\", ",") for key, value in keys.items() if value}
    params = {**asked, "includefield": [_MODALITIES, _COUNT, _PATIENT], "limit": str(most + 1)}
    rows = _ask(web, archive, "/studies", params, most + 1)
    matches = [
        StudyFound(
            study,
            found.date(_first(row, _DATE)),
            found.codes(_values(row, _MODALITIES)),
            found.number(_first(row, _COUNT)),
            str(_first(row, _PATIENT) or "")[:64],
        )
        for row in rows
        if (study := found.uid(_first(row, _STUDY)))
    ]
    kept = list(dict.fromkeys(matches))
    return kept[:most], len(kept) > most


def images(web: Web, archive: Archive, study_instance_uid: str) -> list[ImageFound]:
    """Find the objects of a study; as `query.find_images`."""
    params = {"includefield": [_CLASS, _MODALITY], "limit": str(MOST + 1)}
    rows = _ask(web, archive, f"/studies/{study_instance_uid}/instances", params, MOST + 1)
    if len(rows) > MOST:
        raise DestinationRefusedError(
            f"{where(archive)} says that there are more than {MOST} objects in one study"
        )
    matches = []
    for row in rows:
        series, image = found.uid(_first(row, _SERIES)), found.uid(_first(row, _IMAGE))
        if series and image:
            modality = next(iter(found.codes(_values(row, _MODALITY))), "")
            matches.append(ImageFound(series, image, found.uid(_first(row, _CLASS)), modality))
    return list(dict.fromkeys(matches))


def _ask(web: Web, archive: Archive, path: str, params: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    answers: list[requests.Response] = []
    with (
        web(peer_of(archive), archive.timeout, answers) as http,
        http.get(
            archive.url + path, params=params, headers={"Accept": _JSON}, stream=True, timeout=archive.timeout
        ) as answer,
    ):
        answer.raise_for_status()
        if answer.status_code == 204:  # nothing matched
            return []
        content = bounded(archive, answer)
        try:
            rows = json.loads(content) if content else []
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DestinationAwayError(
                f"{where(archive)} answered a query with something that is no DICOM JSON; check that url is right"
            )
        return rows[:most]


def bounded(archive: Archive, answer: requests.Response) -> bytes:
    """Return a body.

    Raises
    ------
    DestinationRefusedError
        If it has more than `LARGEST_ANSWER` bytes.
    """
    content = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise DestinationRefusedError(
                f"{where(archive)} answered a query with more than {LARGEST_ANSWER} bytes; ask for less"
            )
    return bytes(content)


def _values(row: Mapping[str, Any], tag: str) -> list[Any]:
    element = row.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def _first(row: Mapping[str, Any], tag: str) -> Any:
    return next(iter(_values(row, tag)), None)
