"""Says which destinations a report goes to: by their routes, and by who was told of the study before. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydicom.dataset import Dataset

from dicom_node.domain.ids import DELIVERED_AE_TITLE, SELFTEST_AE_TITLE
from dicom_node.domain.routing import Facts, Route, takes
from dicom_node.domain.types import Instance, StudyResult
from dicom_node.report.header import raw_value

ASKED = ("Modality", "BodyPartExamined")
"""What of an image's header routes ask for."""


def facts(result: StudyResult, headers: Sequence[Dataset], held: Sequence[Instance]) -> Facts:
    """Return what of a study and its result decides where its report goes. No element of a header is decoded."""
    percentiles = [image.score.percentile for image in result.images if image.score is not None]
    return Facts(
        _values(headers, "Modality"),
        frozenset(instance.calling_ae_title for instance in held),
        _values(headers, "BodyPartExamined"),
        result.verdict.value,
        max(percentiles, default=None),
    )


def destinations(
    names: Sequence[str], routes: Mapping[str, Route], seen: Facts, before: Collection[str] = ()
) -> tuple[str, ...]:
    """Return those of the names that a report goes to, in their order.

    Parameters
    ----------
    routes
        By name; one without a route gets everything.
    before
        Those that an earlier report on the study went to: they get what supersedes it whatever their route says.
        A self-test goes nowhere, or everywhere where it is to be delivered.
    """
    if seen.calling_ae_titles == {SELFTEST_AE_TITLE}:
        return ()
    if seen.calling_ae_titles == {DELIVERED_AE_TITLE}:
        return tuple(names)
    return tuple(name for name in names if name in before or takes(routes.get(name, Route()), seen))


def _values(headers: Sequence[Dataset], keyword: str) -> frozenset[str]:
    return frozenset(value for header in headers if (value := _value(header, keyword)))


def _value(header: Dataset, keyword: str) -> str:
    try:
        content = raw_value(header, keyword)
    except (TypeError, ValueError):  # not the text that it should be
        return ""
    return (content or b"").decode("ascii", "replace").strip(" \0")
