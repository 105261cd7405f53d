"""Binary Segmentation of what is above the heat map's threshold (PS3.3 section A.51). Pure.

A radiograph has no frame of reference and no plane position: the segment's one frame is tied to its image by the
derivation macro alone, pixel by pixel (PS3.3 section C.8.20.2).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import Report
from dicom_node.report import codes, uids
from dicom_node.report.display import DESCRIPTION, LABEL, Source, begin, coded, reference
from dicom_node.report.document import Equipment


def build(
    report: Report,
    source: Source,
    explanation: Explanation,
    equipment: Equipment,
    at: datetime,
    number: int = 1,
) -> Report | None:
    """Return the mask of an explanation as a segment; None where nothing is above the threshold."""
    if explanation.region is None:
        return None
    begun = begin(
        report,
        source,
        equipment,
        at,
        kind="segmentation",
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        series_number=5,
        series_description="Unusual areas (research)",
        number=number,
    )
    ds = begun.ds
    ds.ContentLabel = LABEL.replace(" ", "_")
    ds.ContentDescription = DESCRIPTION
    ds.ContentCreatorName = ""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = explanation.rows, explanation.columns
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = ds.PixelRepresentation = 0
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    ds.PatientOrientation = ""
    ds.SegmentationType = "BINARY"
    ds.SegmentsOverlap = "NO"
    ds.NumberOfFrames = 1
    ds.SegmentSequence = [_segment(explanation, equipment, begun.fit)]
    series = Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedInstanceSequence = [reference(source.sop_class_uid, source.sop_instance_uid)]
    ds.ReferencedSeriesSequence = [series]
    organisation = Dataset()
    organisation.DimensionOrganizationUID = uids.derived(str(ds.SOPInstanceUID), "dimension organization")
    ds.DimensionOrganizationSequence = [organisation]
    dimension = Dataset()
    dimension.DimensionOrganizationUID = organisation.DimensionOrganizationUID
    dimension.DimensionIndexPointer = 0x0062000B  # Referenced Segment Number
    dimension.FunctionalGroupPointer = 0x0062000A  # Segment Identification Sequence
    dimension.DimensionDescriptionLabel = "Segment Number"
    ds.DimensionIndexSequence = [dimension]
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    ds.PerFrameFunctionalGroupsSequence = [_frame(source)]
    ds.add_new("PixelData", "OB", explanation.mask + b"\0" * (len(explanation.mask) % 2))
    return begun.finish()


def _segment(explanation: Explanation, equipment: Equipment, fit: Callable[[str], str]) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = "Unusual"
    segment.SegmentDescription = DESCRIPTION
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = equipment.model_name[:64] or "dicom-node"
    segment.SegmentedPropertyCategoryCodeSequence = [coded(codes.SPATIAL_CONCEPT)]
    segment.SegmentedPropertyTypeCodeSequence = [coded(codes.SELECTED_REGION)]
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [coded(codes.ARTIFICIAL_INTELLIGENCE)]
    algorithm.AlgorithmName = fit(explanation.method)[:64]
    algorithm.AlgorithmVersion = equipment.software_version[:64]
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return segment


def _frame(source: Source) -> Dataset:
    origin = reference(source.sop_class_uid, source.sop_instance_uid)
    origin.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    origin.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.SourceImageSequence = [origin]
    derivation.DerivationCodeSequence = [coded(codes.SEGMENTATION)]
    content = Dataset()
    content.DimensionIndexValues = [1]
    identification = Dataset()
    identification.ReferencedSegmentNumber = 1
    frame = Dataset()
    frame.DerivationImageSequence = [derivation]
    frame.FrameContentSequence = [content]
    frame.SegmentIdentificationSequence = [identification]
    return frame
