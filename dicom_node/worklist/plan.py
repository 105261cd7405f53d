"""What of a study is to be fetched, and how that is asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.domain.retrieval import Fetch
from dicom_node.worklist.found import ImageFound

_MOST_IN_A_LIST = 200


@dataclass(frozen=True, slots=True)
class Part:
    """A whole study (no series), a whole series (no images), or images of a series."""

    series_instance_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()


def wanted(images: Iterable[ImageFound], what: Fetch, own: frozenset[str]) -> list[ImageFound]:
    """Return what is fetched of what an archive holds: images that were asked for and that this node did not make."""
    return [
        image
        for image in images
        if image.fetched
        and image.sop_instance_uid not in own
        and (not what.series_instance_uids or image.series_instance_uid in what.series_instance_uids)
        and (not what.sop_instance_uids or image.sop_instance_uid in what.sop_instance_uids)
    ]


def parts(all_images: Sequence[ImageFound], missing: Sequence[ImageFound]) -> list[Part]:
    """Return the fewest requests for what is missing: whole series where that asks for nothing else."""
    sizes: dict[str, int] = {}
    for image in all_images:
        sizes[image.series_instance_uid] = sizes.get(image.series_instance_uid, 0) + 1
    by_series: dict[str, list[str]] = {}
    for image in missing:
        by_series.setdefault(image.series_instance_uid, []).append(image.sop_instance_uid)
    found = []
    for series, images in by_series.items():
        if len(images) == sizes[series]:
            found.append(Part(series))
            continue
        starts = range(0, len(images), _MOST_IN_A_LIST)
        found.extend(Part(series, tuple(images[start : start + _MOST_IN_A_LIST])) for start in starts)
    return found


def unplanned(what: Fetch) -> list[Part]:
    """Return the requests for a study of which the archive does not say what it holds."""
    return [Part(series) for series in what.series_instance_uids] or [Part()]


def identifier(study_instance_uid: str, part: Part) -> Dataset:
    """Return the identifier of a C-GET or C-MOVE request (PS3.4 C.4.2.2.1, unique keys only)."""
    ds = Dataset()
    ds.StudyInstanceUID = study_instance_uid
    ds.QueryRetrieveLevel = "STUDY"
    if part.series_instance_uid:
        ds.QueryRetrieveLevel = "SERIES"
        ds.SeriesInstanceUID = part.series_instance_uid
    if part.sop_instance_uids:
        ds.QueryRetrieveLevel = "IMAGE"
        ds.SOPInstanceUID = list(part.sop_instance_uids)
    return ds


def paths(study_instance_uid: str, part: Part) -> Iterator[str]:
    """Yield the resources of a request on the web (PS3.18 table 10.4.1-1)."""
    path = f"/studies/{study_instance_uid}"
    if part.series_instance_uid:
        path += f"/series/{part.series_instance_uid}"
    if not part.sop_instance_uids:
        yield path
    for image in part.sop_instance_uids:
        yield f"{path}/instances/{image}"
