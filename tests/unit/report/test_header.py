from __future__ import annotations

import warnings
from io import BytesIO

import pytest
from highdicom.sr import (
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    TrackingIdentifier,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.report.header import PATIENT, STUDY, normalise
from tests.unit.report.builders import CR, DX_FOR_PROCESSING, NAMES, SC, USUAL, changed, header, raw

OFTEN_MISSING = (
    "PatientOrientation",
    "ImagerPixelSpacing",
    "StudyID",
    "AccessionNumber",
    "PatientBirthDate",
    "PatientSex",
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyTime",
    "Modality",
)
MISSPELLED: dict[str, tuple[str, bytes, bytes | None]] = {
    # what: (attribute, as sent, as kept; None where it is left out)
    "dashes in the date": ("StudyDate", b"2026-01-01", b"20260101"),
    "dots in the date": ("StudyDate", b"1993.02.24", b"19930224"),
    "no day of the calendar": ("StudyDate", b"20260230", b""),
    "colon in the time": ("StudyTime", b"12:00", b"1200"),
    "no time": ("StudyTime", b"noon", b""),
    "sex as a word": ("PatientSex", b"male", b"M"),
    "sex unknown": ("PatientSex", b"U", b""),
    "half a birth date": ("PatientBirthDate", b"19600", b""),
    "character set with spaces": ("SpecificCharacterSet", b"ISO IR 192", b"ISO_IR 192"),
    "character set of no standard": ("SpecificCharacterSet", b"KLINGON", None),
    "character set with no name": ("SpecificCharacterSet", b"ISO_IR 6", None),
    "ID too long": ("PatientID", b"1" * 65, b""),
    "accession number too long": ("AccessionNumber", b"1" * 17, b""),
    "name too long": ("PatientName", b"A" * 65, b""),
    "two names": ("PatientName", b"Doe^Jane\\Roe^Jane", b""),
    "name of six components": ("PatientName", b"A^B^C^D^E^F", b""),
    "two IDs": ("PatientID", b"P1\\P2", b""),
    "control character": ("StudyID", b"S\x011", b""),
    "illegal frame of reference": ("FrameOfReferenceUID", b"1.02.3", None),
    "orientation of one value": ("PatientOrientation", b"AR", b""),
    "spacing of zero": ("ImagerPixelSpacing", b"0.000\\0.000", None),
    "spacing with a comma": ("ImagerPixelSpacing", b"0,14\\0,14", None),
    "age without a unit": ("PatientAge", b"77", None),
    "offset of a letter": ("TimezoneOffsetFromUTC", b"Z", None),
    "modality in lower case": ("Modality", b"cr", b"CR"),
}


def variants() -> dict[str, Dataset]:
    """Return the 22 headers with something missing or empty, and the misspelled ones."""
    made = {f"{k} missing": header({k: None}) for k in OFTEN_MISSING}
    made |= {f"{k} empty": header({k: b""}) for k in OFTEN_MISSING}
    return made | {what: header({k: sent}) for what, (k, sent, _) in MISSPELLED.items()}


def accepted_by_highdicom(normal: Dataset) -> Comprehensive3DSR:
    """Let highdicom make a document of its own from the header."""
    observer = ObserverContext(codes.DCM.Device, DeviceObserverIdentifyingAttributes(uid="2.25.1"))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid="2.25.2", identifier="1")
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    return Comprehensive3DSR(
        evidence=[normal],
        content=report,
        series_instance_uid="2.25.3",
        series_number=1,
        sop_instance_uid="2.25.4",
        instance_number=1,
        manufacturer="test",
        specific_character_set=None,
    )


def test_there_are_more_variants_than_the_33_known_ones() -> None:
    assert len(variants()) >= 33


@pytest.mark.parametrize("what", variants())
def test_highdicom_takes_every_variant_once_it_is_normal(what: str) -> None:
    normal, _ = normalise(variants()[what])
    buffer = BytesIO()
    accepted_by_highdicom(normal).save_as(buffer)
    assert dcmread(BytesIO(buffer.getvalue())).StudyInstanceUID == USUAL["StudyInstanceUID"].decode()


@pytest.mark.parametrize("keyword", [k for k in OFTEN_MISSING if k not in ("Modality", "ImagerPixelSpacing")])
@pytest.mark.parametrize("sent", [None, b""])
def test_a_missing_value_becomes_an_empty_one(keyword: str, sent: bytes | None) -> None:
    normal, notes = normalise(header({keyword: sent}))
    assert raw(normal, keyword) == b""
    assert [note for note in notes if note.startswith(keyword)] == (
        [f"{keyword}: missing; left empty"] if sent is None else []
    )


@pytest.mark.parametrize("what", MISSPELLED)
def test_a_wrong_value_is_respelled_emptied_or_left_out_and_noted(what: str) -> None:
    keyword, sent, kept = MISSPELLED[what]
    normal, notes = normalise(header({keyword: sent}))
    assert raw(normal, keyword) == kept
    assert any(note.startswith(f"{keyword}: ") for note in notes)
    assert not any(sent.decode() in note for note in notes)


def test_a_legal_header_is_kept_byte_for_byte_without_a_note() -> None:
    source = header({"SpecificCharacterSet": b"ISO_IR 100", "StudyDescription": b"Thorax"})
    normal, notes = normalise(source)
    assert notes == ()
    for keyword, value in USUAL.items():
        if keyword not in ("SOPClassUID", "BodyPartExamined"):
            assert raw(normal, keyword) == value, keyword
    assert (normal.Rows, normal.Columns) == (2500, 2048)


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(CR, "CR"), (DX_FOR_PROCESSING, "DX"), (SC, "OT"), ("1.2.3", "OT")]
)
def test_a_missing_modality_is_what_the_sop_class_says(sop_class: str, modality: str) -> None:
    normal, notes = normalise(header({"SOPClassUID": sop_class.encode(), "Modality": None}))
    assert normal.Modality == modality
    assert "Modality: missing; taken from the SOP class" in notes


def test_an_empty_data_set_becomes_a_header_of_empty_values() -> None:
    normal, _ = normalise(Dataset())
    assert all(raw(normal, keyword) == b"" for keyword in (*PATIENT, *STUDY))
    assert "SOPInstanceUID" not in normal
    assert "SpecificCharacterSet" not in normal


@pytest.mark.parametrize("what", NAMES)
def test_names_keep_their_bytes_and_their_character_set(what: str) -> None:
    charset, name = NAMES[what]
    normal, notes = normalise(header({"SpecificCharacterSet": charset, "PatientName": name}))
    assert raw(normal, "PatientName") == name
    assert (raw(normal, "SpecificCharacterSet") or b"") == charset
    assert notes == ()


def test_an_unknown_character_set_stays_where_a_name_is_written_in_it() -> None:
    normal, notes = normalise(header({"SpecificCharacterSet": b"ISO_IR 999", "PatientName": b"M\xfcller"}))
    assert raw(normal, "PatientName") == b"M\xfcller"
    assert raw(normal, "SpecificCharacterSet") == b"ISO_IR 999"
    assert "SpecificCharacterSet: unknown" in notes


def test_a_name_in_no_declared_character_set_keeps_its_bytes_and_is_noted() -> None:
    normal, notes = normalise(header({"PatientName": b"M\xfcller"}))
    assert raw(normal, "PatientName") == b"M\xfcller"
    assert "SpecificCharacterSet" not in normal
    assert "PatientName: kept, though its bytes do not fit the character set" in notes


@pytest.mark.parametrize(("vr", "value"), [("UN", b"P1"), ("SH", "P1"), ("IS", "42"), ("US", 7), ("FD", 1.5)])
def test_an_attribute_of_the_wrong_vr_is_read_as_what_it_is(vr: str, value: object) -> None:
    source = header()
    source[0x00100020] = DataElement(0x00100020, vr, value)
    normal, _ = normalise(source)
    assert raw(normal, "PatientID") == (value if isinstance(value, bytes) else str(value).encode())


def test_a_sequence_in_the_place_of_a_text_is_given_up() -> None:
    source = header()
    source[0x00100020] = DataElement(0x00100020, "SQ", [Dataset()])
    normal, notes = normalise(source)
    assert raw(normal, "PatientID") == b""
    assert "PatientID: cannot be read; left empty" in notes


def test_values_that_a_program_has_set_are_encoded_in_their_character_set() -> None:
    source = Dataset()
    source.SpecificCharacterSet = "ISO_IR 144"
    source.PatientName = "Иванов^Пётр"
    normal, _ = normalise(source)
    assert raw(normal, "PatientName") == NAMES["cyrillic"][1]


def test_sequences_are_copied_where_their_items_are_whole() -> None:
    issuer, procedure = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    procedure.CodeValue, procedure.CodeMeaning = "1", "Chest"
    source = header()
    source.IssuerOfAccessionNumberSequence = [issuer]
    source.ProcedureCodeSequence = [procedure]
    normal, notes = normalise(source)
    assert normal.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
    assert "ProcedureCodeSequence" not in normal
    assert "ProcedureCodeSequence: an item has no legal CodingSchemeDesignator; left out" in notes


def test_removed_identity_needs_the_method_of_its_removal() -> None:
    without, _ = normalise(header({"PatientIdentityRemoved": b"YES"}))
    assert "PatientIdentityRemoved" not in without
    with_method, _ = normalise(header({"PatientIdentityRemoved": b"YES", "DeidentificationMethod": b"by hand"}))
    assert with_method.PatientIdentityRemoved == "YES"


def test_the_source_is_left_as_it_is() -> None:
    source = header({"StudyDate": b"2026-01-01", "PatientSex": b"male"})
    normalise(source)
    assert raw(source, "StudyDate") == b"2026-01-01"
    assert raw(source, "PatientSex") == b"male"


KEYWORDS = sorted({*USUAL, *(k for k, _, _ in MISSPELLED.values()), "PatientComments", "PatientSize"})


@example({"SpecificCharacterSet": b"A", "AccessionNumber": b"\x80"})
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYWORDS), st.one_of(st.none(), st.binary(max_size=70))))
def test_no_bytes_whatever_stop_it_and_normal_stays_normal(changes: dict[str, bytes | None]) -> None:
    source = changed(changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom's warnings quote the value, and what is warned of is logged
        normal, notes = normalise(source)
        again, _ = normalise(normal)
    assert all(keyword in normal for keyword in (*PATIENT, *STUDY, "Modality", "PatientOrientation"))
    for keyword in (*PATIENT, *STUDY):
        kept = raw(normal, keyword)
        assert raw(again, keyword) == kept
        sent = (changes[keyword] if keyword in changes else USUAL[keyword]) or b""
        assert kept == b"" or kept == sent.rstrip(b" \0") or any(n.startswith(f"{keyword}: ") for n in notes)
