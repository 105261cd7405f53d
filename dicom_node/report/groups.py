"""Measurement groups of a report: TID 1501 with TID 300, 310 to 312 and 4019 inside, and TID 1410 of a region. Pure.

Owns what is said of one image and of each score of it. Text is handed through `fit`, as in `tree`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    ContainerContentItem,
    ContentItem,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    MeasurementStatisticalProperties,
    NormalRangeProperties,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)

from dicom_node.domain.types import ImageResult, Provenance, Score
from dicom_node.report import codes, uids
from dicom_node.report.library import code_item, number_item, text_item

BESIDE = "Measured beside the score of the image; it does not decide the result."

_CONTAINS = RelationshipTypeValues.CONTAINS
_PROPERTIES = RelationshipTypeValues.HAS_PROPERTIES


def group(index: int, image: ImageResult, device_uid: str, fit: Callable[[str], str]) -> ContainerContentItem:
    """Return the group of an image: its score with all that belongs to it, or why it has none.

    Parameters
    ----------
    index
        Of the image in its study, from 0.
    """
    score, made_by = image.score, image.provenance
    algorithm, measurements = None, None
    if score and made_by:
        algorithm = _algorithm(made_by, score.threshold, fit)
        measurements = [_measurement(score, made_by, fit)]
    made = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.tracking_uid(device_uid, image.sop_instance_uid), identifier=f"Image {index + 1}"
        ),
        finding_sites=[FindingSite(anatomic_location=codes.THORAX)] if measurements else None,
        algorithm_id=algorithm,
        measurements=measurements,
        source_images=[SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)],
    )[0]
    if score:
        made.ContentSequence.extend(_nearest(score, fit))
    else:
        made.ContentSequence.append(code_item(codes.NORMALITY, codes.UNDETERMINED, _CONTAINS))
        reason = image.refusal.reason if image.refusal else "no reason was recorded"
        made.ContentSequence.append(text_item(codes.COMMENT, fit(f"Not analysed: {reason}"), _CONTAINS))
    return cast("ContainerContentItem", made)


def groups_beside(
    index: int, image: ImageResult, device_uid: str, fit: Callable[[str], str]
) -> Iterator[ContainerContentItem]:
    """Yield a group for each further score of an image: it follows the one that decides and says so."""
    for number, (score, made_by) in enumerate(((m.score, m.provenance) for m in image.also), start=2):
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                uid=uids.tracking_uid(device_uid, image.sop_instance_uid, number),
                identifier=f"Image {index + 1}, measurement {number}",
            ),
            finding_sites=[FindingSite(anatomic_location=codes.THORAX)],
            algorithm_id=_algorithm(made_by, score.threshold, fit),
            measurements=[_measurement(score, made_by, fit)],
            source_images=[SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)],
        )[0]
        group.ContentSequence.append(text_item(codes.COMMENT, fit(BESIDE), _CONTAINS))
        yield cast("ContainerContentItem", group)


def region_group(
    index: int, image: ImageResult, device_uid: str, fit: Callable[[str], str]
) -> Iterator[ContainerContentItem]:
    """Yield the group of the image's most unusual region (TID 1410), if it has one."""
    if image.region is None:
        return
    percentage = 100.0 * image.region.area
    made = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.derived(device_uid, "region", image.sop_instance_uid),
            identifier=f"Image {index + 1}, most unusual region",
        ),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=np.array([*image.region.outline, image.region.outline[0]], dtype=np.float64),
            source_image=SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid),
            pixel_origin_interpretation=None,
        ),
        finding_type=codes.SELECTED_REGION,
        finding_sites=[FindingSite(anatomic_location=codes.THORAX)],
        measurements=[Measurement(name=codes.REGION_SHARE, value=round(percentage, 3), unit=codes.PERCENT)],
    )[0]
    told = f"The most unusual region covers {percentage:.1f} % of image {index + 1}."
    made.ContentSequence.append(text_item(codes.COMMENT, fit(told), _CONTAINS))
    yield cast("ContainerContentItem", made)


def _nearest(score: Score, fit: Callable[[str], str]) -> Iterator[ContentItem]:
    if score.neighbours:
        yield text_item(codes.NEAREST, fit(f"Nearest normals: {', '.join(score.neighbours)}."), _CONTAINS)


def _measurement(score: Score, made_by: Provenance, fit: Callable[[str], str]) -> Measurement:
    rate = f"{made_by.false_positive_rate * 100:g}"
    statistics = MeasurementStatisticalProperties(
        values=[
            number_item(codes.PERCENTILE, float(score.percentile), codes.PERCENT, _PROPERTIES),
            number_item(codes.Z_SCORE, float(score.z_score), codes.NO_UNITS, _PROPERTIES),
        ]
    )
    statistics.append(text_item(codes.POPULATION, fit(_population(made_by)), _PROPERTIES))
    statistics.append(text_item(codes.AUTHORITY, fit(made_by.site or made_by.bank_name), _PROPERTIES))
    limit = NormalRangeProperties(
        values=[number_item(codes.UPPER_LIMIT, float(score.threshold), codes.NO_UNITS, _PROPERTIES)],
        description=fit(f"Score that {rate} % of the {_normals(made_by)} exceed"),
        authority=fit(made_by.site or made_by.bank_name),
    )
    return Measurement(
        name=codes.SCORE,
        value=float(score.value),
        unit=codes.NO_UNITS,
        properties=MeasurementProperties(
            normality=codes.ABNORMAL if score.above else codes.NORMAL,
            measurement_statistical_properties=statistics,
            normal_range_properties=limit,
        ),
    )


def _population(made_by: Provenance) -> str:
    described = f": {made_by.population}" if made_by.population else ""
    return f"{made_by.calibration_images} {_normals(made_by)}{described}"


def _normals(made_by: Provenance) -> str:
    """Say of whom percentile and threshold speak."""
    if made_by.calibration == "leave-one-out":
        return "normal images of the bank, each compared with the others"
    return "held-out normal images"


def _algorithm(made_by: Provenance, threshold: float, fit: Callable[[str], str]) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=fit(made_by.algorithm),
        version=fit(made_by.algorithm_version),
        parameters=[fit(f"{name}={value}") for name, value in parameters(made_by, threshold)],
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )


def parameters(made_by: Provenance, threshold: float) -> tuple[tuple[str, str], ...]:
    """Return what identifies the algorithm beside its name and version, as name and value."""
    weights = (
        ("weights_sha256", made_by.weights_sha256),
        ("weights_licence", made_by.weights_licence),
        ("training_data", made_by.training_data),
    )
    return (
        ("bank_hash", made_by.bank_hash),
        ("bank_name", made_by.bank_name),
        ("bank_created_at", made_by.created_at),
        ("backbone", made_by.backbone),
        *((name, value) for name, value in weights if value),
        ("head", made_by.head),
        ("k", str(made_by.k)),
        ("views", ",".join(made_by.views)),
        ("false_positive_rate", repr(made_by.false_positive_rate)),
        ("normal_images", str(made_by.normal_images)),
        ("calibration", made_by.calibration),
        ("calibration_images", str(made_by.calibration_images)),
        ("threshold", repr(threshold)),
    )
