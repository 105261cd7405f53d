"""Single values of a data element: what PS3.5 section 6.2 allows, judged on the bytes as they came. Pure.

A value is kept byte for byte, or spelled as the standard spells it where only its spelling was wrong
("2026-01-01", "male", "ISO IR 192"), or given up. It is never guessed and never cut. Knows no data set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_uid

Judged = tuple[bytes | None, str]
"""The bytes to use, None where there is no legal value; and what was wrong, "" where nothing was."""

STAND_ALONE = ("ISO_IR 192", "GB18030", "GBK")
_SINGLE_BYTE = (100, 101, 109, 110, 144, 127, 126, 138, 148, 203, 13, 166)
_MULTI_BYTE = ("ISO 2022 IR 87", "ISO 2022 IR 159", "ISO 2022 IR 149", "ISO 2022 IR 58")
_EXTENSIONS = ("ISO 2022 IR 6", *(f"ISO 2022 IR {n}" for n in _SINGLE_BYTE), *_MULTI_BYTE)
_TERMS = (*STAND_ALONE, *(f"ISO_IR {n}" for n in _SINGLE_BYTE), *_EXTENSIONS)
_ALIASES = {"UTF8": "ISO_IR 192", "LATIN1": "ISO_IR 100", "ISO88591": "ISO_IR 100"}
_LATIN_9 = {"ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"}

_CHARACTERS = {"SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240, "UC": 2**31, "UT": 2**31}
_PARAGRAPHS = frozenset("\t\n\f\r")
_SEXES = {"MALE": b"M", "FEMALE": b"F", "OTHER": b"O", "M": b"M", "F": b"F", "O": b"O"}


def character_sets(raw: bytes) -> tuple[tuple[str, ...], str]:
    """Return the terms of a Specific Character Set, spelled as in PS3.3 section C.12.1.1.2.

    Returns
    -------
    tuple
        The terms, () for the default repertoire, and what was wrong with them. A term that the standard does
        not define comes back as it is, upper case, with the note "unknown".
    """
    text = raw.decode("latin_1").strip(" \0")
    if not text:
        return (), ""
    given = [part.strip(" \0") for part in text.split("\\")]
    terms = [_term(part) for part in given]
    if any(term not in (*_TERMS, "ISO_IR 6", "") for term in terms):
        return tuple(terms), "unknown"
    if terms in (["ISO_IR 6"], ["ISO 2022 IR 6"]) or not any(terms):
        return (), "names the default repertoire, which has no name"
    if len(terms) > 1:
        if terms[0] in STAND_ALONE:
            terms = terms[:1]
        else:
            extended = [t.replace("ISO_IR", "ISO 2022 IR") for t in terms if t not in STAND_ALONE]
            terms = extended if len(extended) > 1 else [extended[0].replace("ISO 2022 IR", "ISO_IR")]
            if terms[0] in _MULTI_BYTE:
                terms = ["", *terms]
    elif terms[0] in _MULTI_BYTE:
        terms = ["", *terms]
    elif terms[0] in _EXTENSIONS:
        terms = [terms[0].replace("ISO 2022 IR", "ISO_IR")]
    return tuple(terms), "" if terms == given else "spelled as the standard does"


def _term(text: str) -> str:
    upper = re.sub(r"[-_ ]+", " ", text.upper())
    if match := re.fullmatch(r"ISO ?IR ?(\d+)", upper):
        return f"ISO_IR {int(match[1])}"
    if match := re.fullmatch(r"ISO ?2022 ?IR ?(\d+)", upper):
        return f"ISO 2022 IR {int(match[1])}"
    return _ALIASES.get(re.sub(r"[-_ ]", "", text.upper()), upper)


def codec(terms: Sequence[str]) -> str:
    """Return Python's name of the encoding that holds without escape sequences; ASCII for none or unknown."""
    first = terms[0] if terms else ""
    if first in ("", "ISO_IR 6", "ISO 2022 IR 6"):
        return "ascii"
    return _LATIN_9.get(first) or python_encoding.get(first, "ascii")


def decode(raw: bytes, terms: Sequence[str]) -> str | None:
    """Return the text that `raw` stands for, or None where the bytes do not fit the character sets."""
    if b"\x1b" in raw and len(terms) > 1 and all(term in ("", *_EXTENSIONS) for term in terms):
        return decode_bytes(raw, convert_encodings(list(terms)), {0x0A, 0x0C, 0x0D, 0x5C, 0x5E, 0x3D})
    try:
        return raw.decode(codec(terms))
    except UnicodeError:
        return None


def judge(vr: str, raw: bytes, terms: Sequence[str] = (), *, many: bool = False) -> Judged:
    """Judge the value of one element by its VR.

    Parameters
    ----------
    vr
        The VR that PS3.6 gives the attribute; what the sender wrote as VR does not count.
    raw
        The value as received, with its padding.
    terms
        Character sets of the data set, from `character_sets`.
    many
        Whether the attribute may have several values.

    Returns
    -------
    tuple
        See `Judged`. An empty value is legal here; whether it may be empty is for the caller to say.
    """
    value = raw.rstrip(b"\0")
    if not value.strip(b" "):
        return b"", ""
    if vr in _CHARACTERS:
        return _text(vr, value, terms, many=many)
    rule = _RULES.get(vr)
    if rule is None:
        return None, f"VR {vr} is not copied"
    parts = value.split(b"\\")
    if len(parts) > 1 and not many:
        return None, "has several values where one is allowed"
    judged = [rule(part.strip(b" \0")) for part in parts]
    note = next((note for _, note in judged if note), "")
    if any(part is None for part, _ in judged):
        return None, note
    return b"\\".join(part for part, _ in judged if part is not None), note


def sex(raw: bytes) -> Judged:
    """Judge a Patient's Sex: M, F or O (PS3.3 section C.7.1.1)."""
    given = raw.strip(b" \0")
    value = _SEXES.get(given.decode("latin_1").upper(), None if given else b"")
    if value is None:
        return None, "is not M, F or O"
    return value, "" if value == given else "spelled as M, F or O"


def timezone(raw: bytes) -> Judged:
    """Judge a Timezone Offset From UTC: &ZZXX from -1200 to +1400, never -0000 (PS3.3 section C.12.1.1.8)."""
    text = raw.strip(b" \0").decode("latin_1")
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", text)
    if not match or text == "-0000" or not -1200 <= int(text) <= 1400:
        return (b"", "") if not text else (None, "is no offset such as +0100")
    return text.encode(), ""


def orientation(raw: bytes) -> Judged:
    """Judge a Patient Orientation: row and column direction (PS3.3 section C.7.6.1.1.1)."""
    text = raw.strip(b" \0").decode("latin_1")
    if not text or re.fullmatch(r"[LRAPHF]{1,3} *\\ *[LRAPHF]{1,3}", text):
        return text.replace(" ", "").encode(), ""
    return None, "is not two directions such as L\\F"


def spacing(raw: bytes) -> Judged:
    """Judge a pixel spacing: two positive decimal strings, in mm."""
    value, note = judge("DS", raw, many=True)
    if not value:
        return value, note
    parts = value.split(b"\\")
    if len(parts) != 2 or any(float(part) <= 0 for part in parts):
        return None, "is not two positive numbers"
    return value, note


def _text(vr: str, value: bytes, terms: Sequence[str], *, many: bool) -> Judged:
    text = decode(value, terms)
    fits = text is not None
    if text is None:
        text = value.decode("latin_1")
    control = {c for c in text if ord(c) < 32 or 126 < ord(c) < 160} - (
        _PARAGRAPHS if vr in ("ST", "LT", "UT") else set()
    )
    if fits and control:
        return None, "has control characters"
    parts = [text] if vr in ("ST", "LT", "UT") else text.split("\\")
    if len(parts) > 1 and not many:
        return None, "has several values where one is allowed"
    groups = [group for part in parts for group in (part.split("=") if vr == "PN" else [part])]
    if any(len(group.strip(" ")) > _CHARACTERS[vr] for group in groups):
        return None, f"is longer than {_CHARACTERS[vr]} characters"
    if vr == "PN" and any(part.count("=") > 2 for part in parts):
        return None, "has more than three component groups"
    if vr == "PN" and any(group.count("^") > 4 for group in groups):
        return None, "has more than five components"
    return value, "" if fits else "kept, though its bytes do not fit the character set"


def _date(value: bytes) -> Judged:
    if not value:
        return b"", ""
    match = re.fullmatch(rb"(\d{4})([-./]?)(\d\d)\2(\d\d)", value)
    if not match:
        return None, "is no date YYYYMMDD"
    try:
        date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None, "is no day of the calendar"
    return match[1] + match[3] + match[4], "spelled as YYYYMMDD" if match[2] else ""


def _time(value: bytes) -> Judged:
    hour, minute, second = rb"([01]\d|2[0-3])", rb"([0-5]\d)", rb"([0-5]\d(?:\.\d{1,6})?)"
    if not value or re.fullmatch(hour + rb"(?:" + minute + rb"(?:" + second + rb")?)?", value):
        return value, ""
    if re.fullmatch(hour + rb":" + minute + rb"(?::" + second + rb")?", value):
        return value.replace(b":", b""), "spelled as HHMMSS"
    return None, "is no time HHMMSS"


def _code_string(value: bytes) -> Judged:
    upper = value.upper()
    if not re.fullmatch(rb"[A-Z0-9 _]{0,16}", upper):
        return None, "is no code string of at most 16 upper case letters, digits, spaces, underscores"
    return upper, "" if upper == value else "spelled in upper case"


def _uid(value: bytes) -> Judged:
    text = value.decode("latin_1")
    try:
        return (check_uid(text, strict=True) if text else "").encode(), ""
    except InvalidIdentifierError:
        return None, "is no UID"


def _pattern(expression: bytes, wrong: str) -> Callable[[bytes], Judged]:
    def rule(value: bytes) -> Judged:
        return (value, "") if re.fullmatch(expression, value) else (None, wrong)

    return rule


_RULES: dict[str, Callable[[bytes], Judged]] = {
    "DA": _date,
    "TM": _time,
    "CS": _code_string,
    "UI": _uid,
    "AS": _pattern(rb"\d{3}[DWMY]", "is no age such as 081Y"),
    "DS": _pattern(
        rb"(?=.{1,16}\Z)[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", "is no number of at most 16 characters"
    ),
    "IS": _pattern(rb"[+-]?\d{1,10}", "is no whole number"),
}
