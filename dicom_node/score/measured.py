"""What every kind of bank says in the same words: a value among its normals, and where the value comes from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from dicom_node import __version__
from dicom_node.domain.types import ImageResult, Measurement, Provenance, Refusal, Score
from dicom_node.score.attributes import value_of
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest

NEIGHBOURS = 5
"""How many of the nearest normal images a score names."""

DIGITS = 6
"""Significant digits of a score: another batch or number of threads moves the last digits of float32, and a report
made again must be the same report."""


def rounded(value: float) -> float:
    """Return the value as a score keeps it."""
    return float(f"{value:.{DIGITS}g}")


def among_normals(
    value: float,
    manifest: Manifest,
    calibration: Calibration,
    nearest: Iterable[str],
    view_distances: Sequence[float] = (),
) -> Score:
    """Return the score that a bank gives a value.

    Parameters
    ----------
    value
        As computed; it is kept with 6 significant digits.
    nearest
        Identifiers of the nearest normal images, nearest first.
    view_distances
        Of each view, where the method has several.
    """
    value = rounded(value)
    return Score(
        value=value,
        percentile=calibration.percentile(value),
        z_score=calibration.z_score(value),
        threshold=manifest.threshold,
        above=value > manifest.threshold,
        view_distances=tuple(view_distances),
        neighbours=tuple(nearest),
    )


def provenance_of(manifest: Manifest, bank_hash: str, algorithm: str) -> Provenance:
    """Return what every report says of the bank and the algorithm."""
    return Provenance(
        bank_hash=bank_hash,
        bank_name=manifest.name,
        algorithm=algorithm,
        algorithm_version=__version__,
        backbone=manifest.backbone.name,
        head=manifest.head,
        k=manifest.k,
        views=manifest.views,
        false_positive_rate=manifest.false_positive_rate,
        normal_images=manifest.normal_images,
        calibration=manifest.calibration,
        calibration_images=manifest.calibration_images,
        population=manifest.population.description,
        site=manifest.population.site,
        created_at=manifest.created_at,
        weights_sha256=manifest.backbone.weights_sha256,
        weights_licence=manifest.backbone.licence,
        training_data=manifest.backbone.training_data,
    )


def result_of(ds: Dataset, *what: Measurement | Refusal) -> ImageResult:
    """Return the result: one refusal, or measurements of which the first decides."""
    first, measured = what[0], tuple(one for one in what if isinstance(one, Measurement))
    return ImageResult(
        sop_class_uid=str(value_of(ds, "SOPClassUID") or ""),
        sop_instance_uid=str(value_of(ds, "SOPInstanceUID") or ""),
        series_instance_uid=str(value_of(ds, "SeriesInstanceUID") or ""),
        score=first.score if isinstance(first, Measurement) else None,
        refusal=first if isinstance(first, Refusal) else None,
        provenance=first.provenance if isinstance(first, Measurement) else None,
        also=measured[1:],
    )


def measurements(result: ImageResult) -> tuple[Measurement, ...]:
    """Return every score of an image with what made it, the one that decides first."""
    if result.score is None or result.provenance is None:
        return ()
    return (Measurement(result.score, result.provenance), *result.also)
