"""The content of a report: TID 1500 with its image library and measurement groups. Pure.

Owns which statement stands where (PS3.16 TID 1500, 1004, 1204). Knows nothing of the document's header. Text is handed
through `fit`, which makes it legal in the character set that the report inherits from its images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    RelationshipTypeValues,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as _standard
from pydicom.sr.coding import Code

from dicom_node.domain.types import ImageResult, StudyResult
from dicom_node.report import codes
from dicom_node.report.groups import group, groups_beside, region_group
from dicom_node.report.library import code_item, is_image, library, text_item
from dicom_node.report.sentence import IN_ENGLISH, language_code, sentence

_CONTAINS = RelationshipTypeValues.CONTAINS
_MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD
_SHORT = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")
_NOTES = 40
"""Most header changes that a report lists."""


@dataclass(frozen=True, slots=True)
class Observer:
    """The device that made the report (TID 1004), its texts already legal in the report's character set."""

    device_uid: str
    name: str
    manufacturer: str
    model_name: str
    serial_number: str


def reported(procedure: tuple[str, str, str] | None, fit: Callable[[str], str]) -> Code:
    """Return the code of the procedure that was asked for, or of an X-ray of no stated region where it is no code.

    Value and scheme have 1 to 16 characters (SH), the meaning at most 64 (LO); PS3.3 section 8.1 to 8.3.
    """
    if procedure is None or not all(_SHORT.fullmatch(part) for part in procedure[:2]):
        return codes.PROCEDURE
    meaning = fit(procedure[2]).replace("\\", "/")[:64].strip()
    return Code(procedure[0], procedure[1], meaning or procedure[0])


def content(
    result: StudyResult,
    headers: Sequence[Dataset],
    observer: Observer,
    fit: Callable[[str], str],
    remarks: Sequence[str] = (),
    notes: Sequence[str] = (),
    spoken: tuple[str, str] | None = None,
    procedure: Code = codes.PROCEDURE,
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
    notes
        What was changed in the headers of the images, never a value of them.
    spoken
        Language and sentence that open the report before the English one, legal in its character set.
    procedure
        What is reported on; see `reported`.

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
    items.append(code_item(codes.PROCEDURE_REPORTED, procedure, _MODIFIER))
    if spoken:
        opening = text_item(codes.SUMMARY, spoken[1], _CONTAINS)
        opening.ContentSequence = LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(language_code(spoken[0]))
        )
        items.append(opening)
    english = (IN_ENGLISH if spoken else "") + sentence(result)
    items.append(text_item(codes.SUMMARY, fit(english), _CONTAINS))
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
                one
                for index, image, _ in shown
                for one in (
                    group(index, image, observer.device_uid, fit),
                    *groups_beside(index, image, observer.device_uid, fit),
                    *region_group(index, image, observer.device_uid, fit),
                )
            ]
        )
        items.append(measurements)
    others = [image for image in result.images if not is_image(image.sop_class_uid)]
    items.append(_evaluations(result, [*_others(others), *remarks], notes, fit))
    root.ContentSequence = items
    return root


def _evaluations(
    result: StudyResult, comments: Sequence[str], notes: Sequence[str], fit: Callable[[str], str]
) -> ContainerContentItem:
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            code_item(codes.OUTCOME, codes.OUTCOMES[result.verdict], _CONTAINS),
            code_item(codes.VERDICT, codes.VERDICTS[result.verdict], _CONTAINS),
            *(text_item(codes.COMMENT, fit(comment), _CONTAINS) for comment in comments),
            *(text_item(codes.QUALITY_NOTE, fit(note), _CONTAINS) for note in _shortened(notes)),
        ]
    )
    return container


def _shortened(notes: Sequence[str]) -> Iterator[str]:
    yield from notes[:_NOTES]
    if len(notes) > _NOTES:
        yield f"and {len(notes) - _NOTES} more changes of this kind"


def _others(images: Sequence[ImageResult]) -> Iterator[str]:
    for image in images:
        reason = image.refusal.reason if image.refusal else "it is no image"
        yield f"Object {image.sop_instance_uid} was not analysed: {reason}"
