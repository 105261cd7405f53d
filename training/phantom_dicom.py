"""Phantoms as DICOM images: DX for presentation, CR, or Secondary Capture.

Owns the attributes a phantom's image object has (PS3.3 A.2, A.8, A.26). May not know how the picture was made,
nor read the clock: time and identifiers come in or follow from the seed. Every object says it is no person.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from training.phantoms import Phantom

Form = Literal["dx", "cr", "sc"]
Photometric = Literal["MONOCHROME2", "MONOCHROME1"]

NOTE = "procedural phantom, not a person"

_SOP_CLASS = {
    "dx": DigitalXRayImageStorageForPresentation,
    "cr": ComputedRadiographyImageStorage,
    "sc": SecondaryCaptureImageStorage,
}


def uid_from(*parts: object) -> UID:
    """Return a UID that is a function of `parts`, under the UUID root 2.25 (PS3.5 B.2)."""
    digest = hashlib.sha256("\x1f".join(map(str, ("phantom", *parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def to_dicom(
    phantom: Phantom,
    *,
    at: datetime,
    form: Form = "dx",
    patient_name: str | None = None,
    patient_id: str | None = None,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    photometric: Photometric = "MONOCHROME2",
    bits: int = 12,
) -> FileDataset:
    """Return the phantom as an image object in Explicit VR Little Endian, ready for ``save_as``.

    Parameters
    ----------
    phantom
        What `make` returned.
    at
        Moment of the study, timezone-aware.
    form
        "dx" (Digital X-Ray, for presentation), "cr" or "sc" (Secondary Capture with Modality DX).
    patient_name, patient_id
        "Phantom^Seed<seed>" and "PHANTOM-<seed>" unless given.
    study_instance_uid, series_instance_uid, sop_instance_uid
        Functions of seed, lesion, strength, shape (and form and encoding for series and instance) unless given.
    photometric
        MONOCHROME1 stores the same picture inverted.
    bits
        Bits stored, 8 to 16; above 8 they are allocated in 16.

    Raises
    ------
    ValueError
        If `at` has no time zone, or `form`, `photometric` or `bits` is none of the above.
    """
    if at.tzinfo is None:
        raise ValueError(f"at is {at.isoformat()} without a time zone; give an aware datetime")
    if form not in _SOP_CLASS:
        raise ValueError(f"form is {form!r}; it must be one of {', '.join(_SOP_CLASS)}")
    if photometric not in get_args(Photometric):
        raise ValueError(
            f"photometric is {photometric!r}; it must be one of {', '.join(get_args(Photometric))}"
        )
    if not 8 <= bits <= 16:
        raise ValueError(f"bits is {bits}; it must be 8 to 16")

    picture = (phantom.seed, phantom.lesion or "normal", phantom.strength, *phantom.image.shape)
    encoding = (*picture, form, photometric, bits)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = _SOP_CLASS[form]
    ds.SOPInstanceUID = sop_instance_uid or uid_from("instance", *encoding)
    ds.StudyInstanceUID = study_instance_uid or uid_from("study", *picture)
    ds.SeriesInstanceUID = series_instance_uid or uid_from("series", *encoding)
    _describe(ds, phantom, at, patient_name, patient_id)
    if form == "dx":
        _digital_x_ray(ds, phantom, photometric)
    elif form == "cr":
        _computed_radiography(ds, phantom)
    else:
        _secondary_capture(ds)
    _pixels(ds, phantom.image, photometric, bits)

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid_from("implementation")
    return FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128)


def _describe(ds: Dataset, phantom: Phantom, at: datetime, name: str | None, patient_id: str | None) -> None:
    """Patient, study, series, equipment and general image attributes that all forms share."""
    day, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    ds.PatientName = name if name is not None else f"Phantom^Seed{phantom.seed}"
    ds.PatientID = patient_id if patient_id is not None else f"PHANTOM-{phantom.seed}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "F" if phantom.female else "M"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.InstanceCreationDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = ds.InstanceCreationTime = time
    ds.TimezoneOffsetFromUTC = at.strftime("%z")[:5]
    ds.StudyID = str(phantom.seed)[:16]
    ds.AccessionNumber = f"PH{phantom.seed}"[:16]
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = NOTE
    ds.SeriesDescription = "Chest PA"
    ds.ImageComments = NOTE if phantom.lesion is None else f"{NOTE}; planted lesion: {phantom.lesion}"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.PatientOrientation = ["L", "F"]
    ds.BodyPartExamined = "CHEST"
    ds.Manufacturer = "dicom_node"
    ds.ManufacturerModelName = "procedural phantom"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"


def _digital_x_ray(ds: Dataset, phantom: Phantom, photometric: Photometric) -> None:
    """DX Series, Anatomy Imaged, Image, Detector, Positioning, Acquisition Context (PS3.3 C.8.11)."""
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_code("816094009", "SCT", "Chest")]
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if photometric == "MONOCHROME1" else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    ds.DetectorType = "DIRECT"
    ds.DetectorID = "PHANTOM"
    ds.ImagerPixelSpacing = [f"{phantom.spacing:.6f}"] * 2
    ds.PositionerType = "NONE"
    ds.ViewPosition = "PA"
    view = _code("272479007", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.PatientOrientationCodeSequence = [_code("C86043", "NCIt", "erect")]
    ds.AcquisitionContextSequence = []


def _computed_radiography(ds: Dataset, phantom: Phantom) -> None:
    """CR Series and CR Image modules (PS3.3 C.8.1)."""
    ds.Modality = "CR"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.ViewPosition = "PA"
    ds.ImagerPixelSpacing = [f"{phantom.spacing:.6f}"] * 2
    ds.PlateID = "PHANTOM"


def _secondary_capture(ds: Dataset) -> None:
    """SC Equipment module (PS3.3 C.8.6.1); the modality says what was captured."""
    ds.Modality = "DX"
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]


def _pixels(ds: Dataset, image: NDArray[np.float32], photometric: Photometric, bits: int) -> None:
    """Image Pixel module and the window that shows all of it (PS3.3 C.7.6.3, C.11.2)."""
    top = (1 << bits) - 1
    values = np.rint(image.astype(np.float64) * top)
    if photometric == "MONOCHROME1":
        values = top - values
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = image.shape
    ds.BitsAllocated = 8 if bits == 8 else 16
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    ds.WindowCenter, ds.WindowWidth = str((top + 1) / 2), str(top + 1)
    ds.WindowCenterWidthExplanation = "all"
    stored = values.astype("<u1" if bits == 8 else "<u2").tobytes()
    ds.PixelData = stored + b"\0" * (len(stored) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
