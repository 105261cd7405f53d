"""Secondary Capture of the image beside its heat map (PS3.3 section A.8.1). Pure."""

from __future__ import annotations

from datetime import datetime

from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import Report
from dicom_node.report import codes
from dicom_node.report.display import NOTICE, Source, begin, coded, reference
from dicom_node.report.document import Equipment


def build(
    report: Report,
    source: Source,
    explanation: Explanation,
    equipment: Equipment,
    at: datetime,
    number: int = 1,
) -> Report:
    """Return the picture of an explanation as a DICOM object that every viewer shows.

    Its modality is OT, not the image's: nobody must take it for a radiograph, this node included. That it is not for
    diagnosis stands in the picture and in Image Comments.
    """
    begun = begin(
        report,
        source,
        equipment,
        at,
        kind="capture",
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        series_number=2,
        series_description=f"Anomaly heat map ({NOTICE.lower()})",
        number=number,
    )
    ds, picture = begun.ds, explanation.picture
    ds.ConversionType = "SYN"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ds.Laterality = ""
    ds.BurnedInAnnotation = "YES"
    ds.RecognizableVisualFeatures = "NO"
    ds.LossyImageCompression = "00"
    ds.DerivationDescription = begun.fit(explanation.method)
    ds.ImageComments = NOTICE
    origin = reference(source.sop_class_uid, source.sop_instance_uid)
    origin.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    ds.SourceImageSequence = [origin]
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = picture.rows, picture.columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add_new("PixelData", "OB", picture.rgb + b"\0" * (len(picture.rgb) % 2))
    return begun.finish()
