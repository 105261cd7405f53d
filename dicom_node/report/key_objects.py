"""Key Object Selection of the images above threshold (PS3.3 section A.35.4, PS3.16 TID 2010). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes as _standard
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.domain.types import Report
from dicom_node.report import codes
from dicom_node.report.display import Source, begin
from dicom_node.report.document import Equipment, references

DESCRIPTION = "Above the threshold of this site's normal chests. Research result, unverified, not a diagnosis."


def build(
    report: Report, sources: Sequence[Source], equipment: Equipment, at: datetime, number: int = 1
) -> Report | None:
    """Return a selection of images; None where there is nothing to select.

    Parameters
    ----------
    sources
        The images above threshold, the one that decides first.
    """
    if not sources:
        return None
    begun = begin(
        report,
        sources[0],
        equipment,
        at,
        kind="key objects",
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        modality="KO",
        series_number=4,
        series_description="Images above threshold (research)",
        number=number,
    )
    ds = begun.ds
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence = references(
        (report.study_instance_uid, s.series_instance_uid, s.sop_class_uid, s.sop_instance_uid) for s in sources
    )
    contains = RelationshipTypeValues.CONTAINS
    root = ContainerContentItem(name=codes.OF_INTEREST, template_id="2010")
    items = ContentSequence()
    items.extend(LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)))
    device = DeviceObserverIdentifyingAttributes(
        uid=equipment.device_uid, name=begun.fit(equipment.ae_title or equipment.model_name or "dicom_node")
    )
    items.extend(ObserverContext(observer_type=_standard.DCM.Device, observer_identifying_attributes=device))
    items.append(
        TextContentItem(
            name=codes.KEY_OBJECT_DESCRIPTION, value=begun.fit(DESCRIPTION), relationship_type=contains
        )
    )
    images = [
        ImageContentItem(
            name=codes.SOURCE,
            referenced_sop_class_uid=source.sop_class_uid,
            referenced_sop_instance_uid=source.sop_instance_uid,
            relationship_type=contains,
        )
        for source in sources
    ]
    items.extend(images)
    root.ContentSequence = items
    for image in root.ContentSequence[
        -len(images) :
    ]:  # TID 2010 gives them no concept name; highdicom asks for one
        del image.ConceptNameCodeSequence
    for element in root:
        ds[element.tag] = element
    return begun.finish()
