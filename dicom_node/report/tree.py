"""The content of a report: TID 1500 with its image library and measurement groups. Pure.

Owns which statement stands where (PS3.16 TID 1500, 1501, 300, 310 to 312, 4019, 1004) and what the sentence for
people says. Knows nothing of the document's header. Text is handed through `fit`, which makes it legal in the
character set that the report inherits from its images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import cast

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    MeasurementStatisticalProperties,
    NormalRangeProperties,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as _standard

from dicom_node.domain.types import ImageResult, Provenance, Score, StudyResult, Verdict
from dicom_node.domain.types import Measurement as MeasuredBeside
from dicom_node.report import codes, uids
from dicom_node.report.library import code_item, is_image, library, number_item, text_item

BESIDE = "Measured beside the score of the image; it does not decide the result."
CAUTION = "Research result, unverified, not a diagnosis."

_CONTAINS = RelationshipTypeValues.CONTAINS
_PROPERTIES = RelationshipTypeValues.HAS_PROPERTIES
_MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD


@dataclass(frozen=True, slots=True)
class Observer:
    """The device that made the report (TID 1004), its texts already legal in the report's character set."""

    device_uid: str
    name: str
    manufacturer: str
    model_name: str
    serial_number: str


def sentence(result: StudyResult) -> str:
    """Return the plain-language sentence that opens the report; it leads with the percentile."""
    if result.decisive is None:
        what = "Analysis failed" if result.verdict is Verdict.FAILED else "Not analysed"
        why = result.reason.strip().rstrip(".") or "no reason was recorded"
        return f"{what}: {why}. There is no score; this says nothing about what the images show. {CAUTION}"
    image = result.images[result.decisive]
    score, made_by = cast("Score", image.score), cast("Provenance", image.provenance)
    whose = "; ".join(part for part in (made_by.population, made_by.site) if part)
    scored = sum(other.score is not None for other in result.images)
    basis = f"{made_by.calibration_images} calibration images" + (f"; {whose}" if whose else "")
    which = f" Image {result.decisive + 1} of {len(result.images)} decides." if len(result.images) > 1 else ""
    left_out = len(result.images) - scored
    missing = f" Not scored: {left_out} of {len(result.images)} images." if left_out else ""
    others = "".join(f" {_beside(other)}" for other in image.also)
    return (
        f"More unusual than {_share(score)} of this site's normal chests ({basis}); "
        f"{result.verdict.value}.{which}{missing}{others} {CAUTION}"
    )


def _share(score: Score) -> str:
    return "all" if score.percentile >= 100 else f"{percent(score.percentile)} %"


def _beside(other: MeasuredBeside) -> str:
    """Return the sentence on a score that decides nothing."""
    basis = f"{other.provenance.calibration_images} calibration images"
    place = "above" if other.score.above else "below"
    return (
        f"Measured beside it, without deciding: {other.provenance.algorithm}: more unusual than "
        f"{_share(other.score)} of {basis}, {place} its threshold."
    )


def percent(value: float) -> str:
    """Return a percentile with at most one decimal, rounded down so that 99.97 does not become 100."""
    return f"{floor(value * 10 + 1e-9) / 10:g}"


def content(
    result: StudyResult,
    headers: Sequence[Dataset],
    observer: Observer,
    fit: Callable[[str], str],
    remarks: Sequence[str] = (),
) -> ContainerContentItem:
    """Return the root of the content tree.

    Parameters
    ----------
    result
        What became of the study.
    headers
        Normalised headers, one for each image of `result`, in its order.
    observer
        The device.
    fit
        Makes a text legal in the character set of the report.
    remarks
        Sentences for people about the study as received.

    Returns
    -------
    highdicom.sr.ContainerContentItem
        The root container of TID 1500.
    """
    root = ContainerContentItem(name=codes.IMAGING_MEASUREMENT_REPORT, template_id="1500")
    items = ContentSequence()
    items.extend(LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)))
    device = DeviceObserverIdentifyingAttributes(
        uid=observer.device_uid,
        name=observer.name,
        manufacturer_name=observer.manufacturer,
        model_name=observer.model_name,
        serial_number=observer.serial_number,
    )
    items.extend(ObserverContext(observer_type=_standard.DCM.Device, observer_identifying_attributes=device))
    items.append(code_item(codes.PROCEDURE_REPORTED, codes.PROCEDURE, _MODIFIER))
    items.append(text_item(codes.SUMMARY, fit(sentence(result)), _CONTAINS))
    shown = [
        (index, image, header)
        for index, (image, header) in enumerate(zip(result.images, headers, strict=True))
        if is_image(image.sop_class_uid)
    ]
    if shown:
        items.append(library([(image, header) for _, image, header in shown], fit))
        measurements = ContainerContentItem(name=codes.IMAGING_MEASUREMENTS, relationship_type=_CONTAINS)
        measurements.ContentSequence = ContentSequence(
            [
                group
                for index, image, _ in shown
                for group in (
                    _group(index, image, observer.device_uid, fit),
                    *_groups_beside(index, image, observer.device_uid, fit),
                )
            ]
        )
        items.append(measurements)
    others = [image for image in result.images if not is_image(image.sop_class_uid)]
    items.append(_evaluations(result, [*_others(others), *remarks], fit))
    root.ContentSequence = items
    return root


def _evaluations(
    result: StudyResult, comments: Sequence[str], fit: Callable[[str], str]
) -> ContainerContentItem:
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            code_item(codes.OUTCOME, codes.OUTCOMES[result.verdict], _CONTAINS),
            code_item(codes.VERDICT, codes.VERDICTS[result.verdict], _CONTAINS),
            *(text_item(codes.COMMENT, fit(comment), _CONTAINS) for comment in comments),
        ]
    )
    return container


def _others(images: Sequence[ImageResult]) -> Iterator[str]:
    for image in images:
        reason = image.refusal.reason if image.refusal else "it is no image"
        yield f"Object {image.sop_instance_uid} was not analysed: {reason}"


def _group(index: int, image: ImageResult, device_uid: str, fit: Callable[[str], str]) -> ContainerContentItem:
    score, made_by = image.score, image.provenance
    algorithm, measurements = None, None
    if score and made_by:
        algorithm = _algorithm(made_by, score.threshold, fit)
        measurements = [_measurement(score, made_by, fit)]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.tracking_uid(device_uid, image.sop_instance_uid), identifier=f"Image {index + 1}"
        ),
        finding_sites=[FindingSite(anatomic_location=codes.THORAX)] if measurements else None,
        algorithm_id=algorithm,
        measurements=measurements,
        source_images=[SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid)],
    )[0]
    if not measurements:
        group.ContentSequence.append(code_item(codes.NORMALITY, codes.UNDETERMINED, _CONTAINS))
        reason = image.refusal.reason if image.refusal else "no reason was recorded"
        group.ContentSequence.append(text_item(codes.COMMENT, fit(f"Not analysed: {reason}"), _CONTAINS))
    return cast("ContainerContentItem", group)


def _groups_beside(
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
