"""Every coded concept of the report, once. Owns code and meaning; knows nothing of how they are arranged. Pure.

Codes of the standard come from pydicom's copy of PS3.16 where it has them. What no scheme has a code for is
in a private scheme, which each report declares (Coding Scheme Identification Sequence, PS3.3 C.12.1.1.17).
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.domain.types import Verdict
from dicom_node.report.uids import derived

SCHEME = "99DICOMNODE"
SCHEME_UID = derived("dicom_node", "coding scheme")

# Document (TID 1500)
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
PROCEDURE = Code("43468-8", "LN", "XR unspecified body region")
SUMMARY = codes.DCM.Summary
COMMENT = codes.DCM.Comment
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
IMAGING_MEASUREMENTS = codes.DCM.ImagingMeasurements
IMAGING_MEASUREMENT_REPORT = codes.DCM.ImagingMeasurementReport
PROCEDURE_REPORTED = codes.DCM.ProcedureReported

# Image library (TID 1600 to 1603)
IMAGE_LIBRARY = codes.DCM.ImageLibrary
IMAGE_LIBRARY_GROUP = codes.DCM.ImageLibraryGroup
SOURCE = Code("260753009", "SCT", "Source")
MODALITY = codes.DCM.Modality
ROWS = codes.DCM.PixelDataRows
COLUMNS = codes.DCM.PixelDataColumns
PATIENT_ORIENTATION_ROW = codes.DCM.PatientOrientationRow
PATIENT_ORIENTATION_COLUMN = codes.DCM.PatientOrientationColumn
HORIZONTAL_PIXEL_SPACING = codes.DCM.HorizontalPixelSpacing
VERTICAL_PIXEL_SPACING = codes.DCM.VerticalPixelSpacing
FRAME_OF_REFERENCE_UID = codes.DCM.FrameOfReferenceUID
IMAGE_VIEW = codes.DCM.ImageView
MODALITIES = {
    "CR": codes.cid29.ComputedRadiography,
    "DX": codes.cid29.DigitalRadiography,
    "RG": codes.cid29.RadiographicImaging,
    "RF": codes.cid29.Radiofluoroscopy,
    "XA": codes.cid29.XRayAngiography,
    "MG": codes.cid29.Mammography,
    "CT": codes.cid29.ComputedTomography,
    "MR": codes.cid29.MagneticResonance,
    "US": codes.cid29.Ultrasound,
    "NM": codes.cid29.NuclearMedicine,
    "PT": codes.cid29.PositronEmissionTomography,
    "OT": Code("OT", "DCM", "Other"),
}
VIEWS = {
    "PA": codes.cid4010.PosteroAnterior,
    "AP": codes.cid4010.AnteroPosterior,
    "LL": codes.cid4010.LeftLateral,
    "RL": codes.cid4010.RightLateral,
}

# Measurement group (TID 1501) and measurement (TID 300, 310, 311, 312)
THORAX = Code("816094009", "SCT", "Thorax")
ARTIFICIAL_INTELLIGENCE = codes.DCM.ArtificialIntelligence
PERCENTILE = codes.DCM.PercentileRankingOfMeasurement
Z_SCORE = codes.DCM.ZScoreOfMeasurement
POPULATION = codes.DCM.PopulationDescription
AUTHORITY = codes.DCM.ReferenceAuthority
UPPER_LIMIT = codes.SCT.NormalRangeUpperLimit
NORMALITY = codes.DCM.Normality
ABNORMAL = Code("263654008", "SCT", "Abnormal")
NORMAL = Code("17621005", "SCT", "Normal")
UNDETERMINED = Code("371934000", "SCT", "Normality Undetermined")
ALGORITHM_NAME = codes.DCM.AlgorithmName
ALGORITHM_PARAMETERS = codes.DCM.AlgorithmParameters

NO_UNITS = codes.UCUM.NoUnits
PERCENT = codes.UCUM.Percent
MILLIMETRE = codes.UCUM.Millimeter
PIXELS = Code("{pixels}", "UCUM", "pixels")

# Objects to look at, beside the report
OF_INTEREST = codes.DCM.OfInterest
KEY_OBJECT_DESCRIPTION = codes.DCM.KeyObjectDescription
SOURCE_IMAGE = Code("121322", "DCM", "Source Image for Image Processing Operation")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
SPATIAL_CONCEPT = codes.SCT.SpatialAndRelationalConcept
SELECTED_REGION = codes.DCM.SelectedRegion

# Outcome
OUTCOME = codes.DCM.CADProcessingAndFindingsSummary
WITH_FINDINGS = codes.DCM.AllAlgorithmsSucceededWithFindings
WITHOUT_FINDINGS = codes.DCM.AllAlgorithmsSucceededWithoutFindings
NONE_SUCCEEDED = codes.DCM.NoAlgorithmsSucceededWithoutFindings
OUTCOMES = {
    Verdict.ABOVE: WITH_FINDINGS,
    Verdict.BELOW: WITHOUT_FINDINGS,
    Verdict.NOT_ANALYSED: NONE_SUCCEEDED,
    Verdict.FAILED: NONE_SUCCEEDED,
}

# Ours
SCORE = Code("SCORE", SCHEME, "Anomaly score (distance from normal)")
QUALITY_NOTE = Code("QUALITY_NOTE", SCHEME, "Changed while reading the header")
NEAREST = Code("NEAREST", SCHEME, "Nearest normal images of the bank, nearest first")
REGION_SHARE = Code("REGION_SHARE", SCHEME, "Share of the image that the region covers")
VERDICT = Code("VERDICT", SCHEME, "Result for the study")
VERDICTS = {
    Verdict.ABOVE: Code("ABOVE", SCHEME, "Above threshold"),
    Verdict.BELOW: Code("BELOW", SCHEME, "Below threshold"),
    Verdict.NOT_ANALYSED: Code("NOT_ANALYSED", SCHEME, "Not analysed"),
    Verdict.FAILED: Code("FAILED", SCHEME, "Failed"),
}


def scheme_identification() -> Dataset:
    """Return the item that declares the private scheme (PS3.3 section C.12.1.1.17).

    Its UID is the same on every node: the scheme belongs to the program, not to a device.
    """
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeUID = SCHEME_UID
    item.CodingSchemeName = "dicom_node chest X-ray anomaly scores"
    item.CodingSchemeVersion = "1"
    item.CodingSchemeResponsibleOrganization = "dicom_node"
    return item
