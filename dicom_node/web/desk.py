"""What the pages ask of the node, and what they may order. The node gives the pages something that does this.

Every method may raise a `NodeError`, whose text is written for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from dicom_node.domain.people import By
from dicom_node.domain.reading import BankView, Filters, HealthView, Held, Row, StudyList, StudyView

PictureKind = Literal["thumbnail", "image", "heat-map"]
"""A JPEG of at most 160 pixels a side; the whole image as a grey PNG of at most 2048 pixels a side, 8 or 16 bits,
stretched to its range (see `score.picture.whole`); the heat map as an RGBA PNG of the image's proportions, transparent
where nothing is unusual."""

Mark = Literal["normal", "abnormal", "clear"]


class Desk(Protocol):
    """Answers questions and carries out orders."""

    def studies(self, filters: Filters, offset: int, limit: int) -> StudyList:
        """Return one page of the list, within 100 ms for 5 000 studies."""

    def study(self, study_instance_uid: str) -> StudyView:
        """Return one study. Raises NotFoundError."""

    def picture(self, sop_instance_uid: str, kind: PictureKind) -> bytes:
        """Return a picture of an image held here. Raises NotFoundError where there is none (any more, or yet)."""

    def study_of(self, sop_instance_uid: str) -> str:
        """Return the study of an image held here. Raises NotFoundError."""

    def normal_picture(self, bank: str, identifier: str) -> bytes:
        """Return a JPEG of one of a bank's normals. Raises NotFoundError where the bank kept none."""

    def changes(self, after: int) -> tuple[int, Sequence[str]]:
        """Return the last event's number, and the studies that events after `after` are about ("" for the node)."""

    def banks(self) -> tuple[BankView, ...]:
        """Return all banks, those in use first."""

    def health(self) -> HealthView:
        """Return the node at a glance."""

    def destinations(self) -> tuple[str, ...]:
        """Return the names of the destinations that are configured."""

    def retry(self, items: Iterable[int], by: By) -> Sequence[Row]:
        """As `dicom-node worklist retry`."""

    def cancel(self, items: Iterable[int], by: By) -> Sequence[Row]:
        """As `dicom-node worklist cancel`."""

    def rerun(self, studies: Iterable[str], bank: str, by: By) -> Sequence[Row]:
        """As `dicom-node worklist rerun`."""

    def prioritise(self, study_instance_uid: str, priority: int, by: By) -> Sequence[Row]:
        """Give the study's work that is not begun another priority; see `domain.urgency`."""

    def mark(self, study_instance_uid: str, mark: Mark, by: By) -> None:
        """As `dicom-node worklist mark`."""

    def activate(self, bank: str, by: By) -> None:
        """As `dicom-node bank activate`."""

    def rollback(self, by: By) -> str:
        """As `dicom-node bank rollback`; return the name of the bank that is active now."""

    def results(self) -> Sequence[Held]:
        """Return every DICOM object of this node's own making that is still held: reports and display objects."""

    def result(self, sop_instance_uid: str) -> bytes:
        """Return one of them as a Part 10 file. Raises NotFoundError."""

    def described(self, held: Held) -> Row:
        """Return what queries ask of one of them, as DICOM JSON (PS3.18 annex F) of its first level."""

    def metadata(self, sop_instance_uid: str) -> Row:
        """Return all of one of them as DICOM JSON, without pixels. Raises NotFoundError."""

    def looked_at(self, study_instance_uid: str, by: By) -> None:
        """Note in the audit trail that a person saw a study, and from which address."""

    def listed(self, by: By) -> None:
        """Note in the audit trail that a person saw the list, and from which address."""
