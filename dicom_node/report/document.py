"""What the node's objects have in common, whatever their class: patient, study, equipment, moment, references. Pure.

Owns how attributes of the images get into our objects. What is copied from an image is `header`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset

from dicom_node.report.header import COPIED, normalise, raw_value


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a report says of the node: the device observer and the General Equipment module.

    `device_uid` is the node's own UID, from which it derives all others; `software_version` changes the series.
    `language` is that of the sentence which opens a report, a key of ``texts.toml``.
    """

    device_uid: str
    manufacturer: str
    model_name: str
    serial_number: str
    software_version: str
    institution_name: str = ""
    ae_title: str = ""
    series_description: str = ""
    language: str = "en"


def normalised(sources: Sequence[Dataset]) -> tuple[list[Dataset], list[str]]:
    """Return the legal header of each image, and what was changed, each note naming the image by its number."""
    headers: list[Dataset] = []
    notes: list[str] = []
    for index, source in enumerate(sources):
        header, changed = normalise(source)
        headers.append(header)
        notes += [f"Header of image {index + 1}: {note}." for note in changed]
    return headers, notes


def copy_patient(patient: Dataset, ds: Dataset) -> None:
    """Copy patient and study from a normalised header, unchanged and with their character set."""
    for keyword in ("SpecificCharacterSet", *COPIED):
        element = patient.get_item(keyword)
        if element is not None:
            ds[element.tag] = element


def local_moment(ds: Dataset, at: datetime) -> datetime:
    """Return `at` in the zone that the copied study states; as it is where it states none."""
    if "TimezoneOffsetFromUTC" not in ds:
        return at
    text = (raw_value(ds, "TimezoneOffsetFromUTC") or b"").decode().strip()
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    zone = timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    return at.astimezone(zone)


def describe_equipment(ds: Dataset, equipment: Equipment, fit: Callable[[str], str]) -> list[str]:
    """Write the General Equipment module and the series' description; return their values, by which series differ."""
    long = [
        long_string(fit, text) or "unknown"
        for text in (
            equipment.manufacturer,
            equipment.model_name,
            equipment.serial_number,
            equipment.software_version,
        )
    ]
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = long
    ds.DeviceUID = equipment.device_uid  # by which the node knows its own objects when they come back
    institution = long_string(fit, equipment.institution_name)
    if institution:
        ds.InstitutionName = institution
    description = long_string(fit, equipment.series_description)
    if description:
        ds.SeriesDescription = description
    return [*long, institution, description]


def stamp_content(ds: Dataset, moment: datetime) -> None:
    """Write when the content and the instance were made."""
    for name in ("ContentDate", "InstanceCreationDate"):
        setattr(ds, name, moment.strftime("%Y%m%d"))
    for name in ("ContentTime", "InstanceCreationTime"):
        setattr(ds, name, moment.strftime("%H%M%S"))


def references(objects: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """Return items for (study, series, SOP class, SOP instance) UIDs, by study and series (PS3.3 table C.17.2-1)."""
    studies: dict[str, dict[str, dict[str, str]]] = {}
    for study, series, sop_class, sop_instance in objects:
        studies.setdefault(study, {}).setdefault(series, {})[sop_instance] = sop_class
    items = []
    for study, by_series in studies.items():
        item = Dataset()
        item.StudyInstanceUID = study
        item.ReferencedSeriesSequence = []
        for series, instances in by_series.items():
            inner = Dataset()
            inner.SeriesInstanceUID = series
            inner.ReferencedSOPSequence = []
            for sop_instance, sop_class in instances.items():
                reference = Dataset()
                reference.ReferencedSOPClassUID = sop_class
                reference.ReferencedSOPInstanceUID = sop_instance
                inner.ReferencedSOPSequence.append(reference)
            item.ReferencedSeriesSequence.append(inner)
        items.append(item)
    return items


def long_string(fit: Callable[[str], str], text: str) -> str:
    """Return a text as a legal Long String (LO), "" where it is blank."""
    return fit(text).replace("\\", "/")[:64].strip() if text.strip() else ""
