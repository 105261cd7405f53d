"""WADO-RS as its user (PS3.18 10.4): parts of an answer go in one by one, their bytes as sent. Bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import requests

from dicom_node.domain.errors import CannotUnderstandError, DestinationAwayError, InvalidIdentifierError
from dicom_node.domain.retrieval import Archive
from dicom_node.worklist.connect import Web, peer_of, where
from dicom_node.worklist.intake import Intake, Named
from dicom_node.worklist.multipart import MultipartError, boundary_of, parts
from dicom_node.worklist.part10 import Header

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK = 256 * 1024
MOST_PARTS = 5000


def wado(web: Web, archive: Archive, paths: Sequence[str], intake: Intake) -> None:
    """Retrieve each path below the archive's URL, such as ``/studies/1.2/series/1.2.3``.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError, NotOfferedError
        If it fails as a whole, or ends in the middle. What came before is safe.
    OutOfResourcesError
        If the disk is too full.
    """
    answers: list[requests.Response] = []
    with web(peer_of(archive), archive.timeout, answers) as http:
        for path in paths:
            with http.get(
                archive.url + path, headers={"Accept": _ACCEPT}, stream=True, timeout=archive.timeout
            ) as answer:
                answer.raise_for_status()
                try:
                    boundary = boundary_of(answer.headers.get("Content-Type", ""))
                    _take_parts(parts(answer.iter_content(_CHUNK), boundary), intake)
                except MultipartError as error:
                    raise DestinationAwayError(
                        f"{where(archive)} answered with something that is no multipart body: {error}"
                    ) from error
            answers.clear()


def _take_parts(pieces: Iterator[bytes | None], intake: Intake) -> None:
    part: _Part | None = None
    taken = 0
    for piece in pieces:
        if piece is not None:
            part = part or _Part(intake.stage)
            part.feed(piece)
            continue
        if part is not None:
            intake.take(part.staged)
        part, taken = None, taken + 1
        if taken > MOST_PARTS:
            raise MultipartError(f"it has more than {MOST_PARTS} parts")
        intake.require_space()


class _Part:
    """One part: a Part 10 file that comes in pieces."""

    def __init__(self, stage: Callable[[Callable[[], Named]], BytesIO]) -> None:
        self._header = Header()
        self._fault: CannotUnderstandError | InvalidIdentifierError | None = None
        self.staged: Any = stage(self._named)

    def _named(self) -> Named:
        if self._fault is not None:
            raise self._fault
        assert self._header.named is not None  # noqa: S101 - for mypy; its first byte comes after the header
        return self._header.named

    def feed(self, piece: bytes) -> None:
        if self._fault is None:
            try:
                piece = self._header.feed(piece)
            except (CannotUnderstandError, InvalidIdentifierError) as error:
                self._fault = error
        if piece:
            self.staged.write(piece)
        if getattr(self.staged, "endless", False):
            raise MultipartError("a part that was refused for its size goes on and on")
