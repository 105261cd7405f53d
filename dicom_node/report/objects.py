"""Which display objects a report is accompanied by, and for which images. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import Report, StudyResult
from dicom_node.report import capture, key_objects, presentation, segmentation
from dicom_node.report.display import Source
from dicom_node.report.document import Equipment

_Build = Callable[[Report, Source, Explanation, Equipment, datetime, int], Report | None]

_OF_AN_IMAGE: dict[str, _Build] = {
    "secondary-capture": capture.build,
    "presentation-state": presentation.build,
    "segmentation": segmentation.build,
}
_KEY_OBJECTS = "key-objects"


def build(
    kinds: Collection[str],
    report: Report,
    result: StudyResult,
    sources: Sequence[Source],
    explanations: Mapping[str, Explanation],
    equipment: Equipment,
    at: datetime,
) -> Iterator[tuple[str, Report]]:
    """Yield the objects beside a report, each with its kind.

    Key objects are one for each study, and select the images above threshold; each of the other kinds is made of every
    image that is explained and has something to show.

    Parameters
    ----------
    kinds
        Kinds that are wanted, as in ``[[destinations]] objects``.
    report, result
        The report and what it says.
    sources
        The images of `result`, in the same order.
    explanations
        By SOP Instance UID of the image.
    at
        When the analysis was made; timezone-aware.
    """
    explained = [(s, explanations[s.sop_instance_uid]) for s in sources if s.sop_instance_uid in explanations]
    for kind, make in _OF_AN_IMAGE.items():
        if kind in kinds:
            for number, (source, explanation) in enumerate(explained, 1):
                made = make(report, source, explanation, equipment, at, number)
                if made is not None:
                    yield kind, made
    if _KEY_OBJECTS in kinds:
        above = [at for at, image in enumerate(result.images) if image.score is not None and image.score.above]
        first = sorted(above, key=lambda at: at != result.decisive)
        made = key_objects.build(report, [sources[at] for at in first], equipment, at)
        if made is not None:
            yield _KEY_OBJECTS, made
