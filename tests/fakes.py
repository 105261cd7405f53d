"""Stand-ins for what a test wants to hold in its hands: the clock, the scorer, the destination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydicom import Dataset

from dicom_node.domain.types import Delivery, Destination, ImageResult, Provenance, Refusal, Score


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


PROVENANCE = Provenance(
    bank_hash="b" * 64,
    bank_name="test",
    algorithm="Deep kNN",
    algorithm_version="1",
    backbone="none",
    head="identity",
    k=1,
    views=("squash",),
    false_positive_rate=0.05,
    normal_images=100,
    calibration="held-out",
    calibration_images=25,
    population="phantoms",
    site="test",
    created_at="2026-01-01T00:00:00+00:00",
)


def scored(ds: Dataset, percentile: float = 40.0, *, above: bool = False) -> ImageResult:
    """Return the result of an image with a score."""
    score = Score(percentile / 100, percentile, 0.5, 0.95, above, (percentile / 100,), ("n1",))
    return ImageResult(
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, score=score, provenance=PROVENANCE
    )


def refused(ds: Dataset, code: str, reason: str) -> ImageResult:
    """Return the result of an image that was not scored."""
    return ImageResult(ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, refusal=Refusal(code, reason))


@dataclass
class Peer:
    """A destination that keeps what it is sent and answers as it is told."""

    answer: Callable[[Destination], int] = lambda _destination: 0
    kept: list[tuple[str, bytes]] = field(default_factory=list)

    def send(self, destination: Destination, content: bytes, also: Sequence[bytes] = ()) -> Delivery:
        """Take one object, or raise what `answer` raises."""
        from io import BytesIO

        from pydicom import dcmread

        status = self.answer(destination)
        self.kept += [(destination.name, one) for one in (content, *also)]
        uid = str(dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
        objects = [dcmread(BytesIO(one), stop_before_pixels=True) for one in also]
        taken = tuple(Delivery(destination.name, str(one.SOPInstanceUID), 0) for one in objects)
        return Delivery(destination.name, uid, status, also=taken)
