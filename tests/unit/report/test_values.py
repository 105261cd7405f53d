from __future__ import annotations

import pytest

from dicom_node.report import values


@pytest.mark.parametrize(
    ("raw", "terms", "note"),
    [
        (b"", (), ""),
        (b"ISO_IR 100", ("ISO_IR 100",), ""),
        (b"\\ISO 2022 IR 87", ("", "ISO 2022 IR 87"), ""),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87 ", ("ISO 2022 IR 13", "ISO 2022 IR 87"), ""),
        (b"ISO_IR 203", ("ISO_IR 203",), ""),
        (b"ISO IR 192", ("ISO_IR 192",), "spelled as the standard does"),
        (b"iso-ir-144", ("ISO_IR 144",), "spelled as the standard does"),
        (b"ISO_IR192", ("ISO_IR 192",), "spelled as the standard does"),
        (b"UTF-8", ("ISO_IR 192",), "spelled as the standard does"),
        (b"ISO 2022 IR 100", ("ISO_IR 100",), "spelled as the standard does"),
        (b"ISO 2022 IR 87", ("", "ISO 2022 IR 87"), "spelled as the standard does"),
        (b"ISO_IR 100\\ISO 2022 IR 87", ("ISO 2022 IR 100", "ISO 2022 IR 87"), "spelled as the standard does"),
        (b"ISO_IR 192\\ISO 2022 IR 87", ("ISO_IR 192",), "spelled as the standard does"),
        (b"ISO_IR 6", (), "names the default repertoire, which has no name"),
        (b"\\", (), "names the default repertoire, which has no name"),
        (b"KLINGON", ("KLINGON",), "unknown"),
    ],
)
def test_character_sets_are_spelled_as_the_standard_does(raw: bytes, terms: tuple[str, ...], note: str) -> None:
    assert values.character_sets(raw) == (terms, note)


@pytest.mark.parametrize(
    ("vr", "raw", "value"),
    [
        ("DA", b"20260101", b"20260101"),
        ("DA", b"2026-01-01", b"20260101"),
        ("DA", b"1993.02.24", b"19930224"),
        ("DA", b"19600", None),
        ("DA", b"20260230", None),
        ("DA", b"00000000", None),
        ("DA", b"2026-0101", None),
        ("DA", b"20260101\\20260102", None),
        ("TM", b"1200", b"1200"),
        ("TM", b"12:00", b"1200"),
        ("TM", b"11:22:07", b"112207"),
        ("TM", b"112207.123456 ", b"112207.123456"),
        ("TM", b"126000", None),
        ("TM", b"12.5", None),
        ("TM", b"noon", None),
        ("CS", b"chest", b"CHEST"),
        ("CS", b"CHEST-PA", None),
        ("CS", b"A" * 17, None),
        ("UI", b"1.2.3\0", b"1.2.3"),
        ("UI", b"1.2.3 ", b"1.2.3"),
        ("UI", b"1.02.3", None),
        ("UI", b"1." + b"2" * 64, None),
        ("AS", b"081Y", b"081Y"),
        ("AS", b"81", None),
        ("DS", b"1.75", b"1.75"),
        ("DS", b"1,75", None),
        ("DS", b"0.12345678901234567", None),
        ("LO", b"P1", b"P1"),
        ("LO", b"1" * 64, b"1" * 64),
        ("LO", b"1" * 65, None),
        ("LO", b"P1\\P2", None),
        ("LO", b"P\x01", None),
        ("SH", b"1" * 17, None),
        ("PN", b"A^B^C^D^E", b"A^B^C^D^E"),
        ("PN", b"A^B^C^D^E^F", None),
        ("PN", b"A=B=C=D", None),
        ("PN", b"A^B\\C^D", None),
        ("PN", b"A" * 64 + b"=" + b"B" * 64, b"A" * 64 + b"=" + b"B" * 64),
        ("PN", b"A" * 65, None),
        ("LT", b"one\r\ntwo", b"one\r\ntwo"),
        ("LO", b"   ", b""),
        ("LO", b"", b""),
        ("OB", b"\x01", None),
    ],
)
def test_a_value_is_kept_respelled_or_given_up(vr: str, raw: bytes, value: bytes | None) -> None:
    kept, note = values.judge(vr, raw)
    assert kept == value
    assert bool(note) == (value is None or value != raw.rstrip(b" \0"))


def test_a_name_is_measured_in_characters_and_not_in_bytes() -> None:
    name = ("山" * 64).encode()
    assert values.judge("PN", name, ("ISO_IR 192",)) == (name, "")
    assert values.judge("PN", name + "山".encode(), ("ISO_IR 192",))[0] is None


def test_a_byte_of_a_character_is_no_delimiter() -> None:
    name = "誠^俓".encode("gb18030")
    assert b"\\" in name
    assert values.judge("PN", name, ("GB18030",)) == (name, "")


def test_bytes_that_do_not_fit_their_character_set_are_kept_and_noted() -> None:
    kept, note = values.judge("PN", b"M\xfcller", ("ISO_IR 192",))
    assert kept == b"M\xfcller"
    assert "do not fit" in note


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"M", b"M"), (b"male", b"M"), (b"Female ", b"F"), (b"o", b"O"), (b"U", None), (b"", b"")],
)
def test_sex_is_m_f_or_o(raw: bytes, value: bytes | None) -> None:
    assert values.sex(raw)[0] == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"+0100", b"+0100"),
        (b"-0330 ", b"-0330"),
        (b"-0000", None),
        (b"+1500", None),
        (b"Z", None),
        (b"+0160", None),
    ],
)
def test_an_offset_is_hours_and_minutes_from_utc(raw: bytes, value: bytes | None) -> None:
    assert values.timezone(raw)[0] == value


@pytest.mark.parametrize(
    ("raw", "value"), [(b"L\\F", b"L\\F"), (b"LA\\F ", b"LA\\F"), (b"L", None), (b"L\\Q", None), (b"", b"")]
)
def test_an_orientation_is_two_directions(raw: bytes, value: bytes | None) -> None:
    assert values.orientation(raw)[0] == value


@pytest.mark.parametrize(
    ("raw", "value"), [(b"0.14\\0.14", b"0.14\\0.14"), (b"0.000\\0.000", None), (b"0.14", None), (b"", b"")]
)
def test_a_spacing_is_two_positive_numbers(raw: bytes, value: bytes | None) -> None:
    assert values.spacing(raw)[0] == value
