"""Which of our own texts fit the character set that an object inherits from its images (PS3.3 C.12.1.1.2). Pure.

Most of them are English and are made ASCII, which every character set holds. The sentence in the site's language is
written in the inherited set where that has its characters, else without its accents, else not at all.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataset import Dataset
from pydicom.valuerep import TEXT_VR_DELIMS

from dicom_node.report import values
from dicom_node.report.header import raw_value

_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "å": "aa", "Å": "Aa"}
)


def terms_of(patient: Dataset) -> tuple[str, ...]:
    """Return the defined terms of the copied character set; () for the default repertoire."""
    return values.character_sets(raw_value(patient, "SpecificCharacterSet") or b"")[0]


def is_unicode(patient: Dataset) -> bool:
    """Return whether the copied character set is UTF-8."""
    return terms_of(patient) == ("ISO_IR 192",)


def fitter(patient: Dataset) -> Callable[[str], str]:
    """Return what makes a text legal in the report's character set: ASCII wherever that set may differ."""
    unicode = is_unicode(patient)

    def fit(text: str) -> str:
        clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).strip()
        if not unicode:
            clean = unicodedata.normalize("NFKD", clean)
            clean = "".join(c for c in clean if not unicodedata.combining(c))
            clean = clean.encode("ascii", "replace").decode("ascii")
        return clean or "-"

    return fit


def written(text: str, terms: tuple[str, ...]) -> str | None:
    """Return a sentence as it can be written in a character set; None where too little of it would be left.

    Parameters
    ----------
    terms
        Defined terms of the character set, as from `terms_of`.
    """
    if text.isascii() or _encodable(text, terms):
        return text
    folded = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    ascii_only = "".join(c for c in folded if not unicodedata.combining(c))
    return ascii_only if ascii_only.isascii() else None


def _encodable(text: str, terms: tuple[str, ...]) -> bool:
    if terms in (("ISO_IR 192",), ("GB18030",)):
        return True
    japanese = terms[1:] == ("ISO 2022 IR 87",)
    if not japanese and (len(terms) != 1 or not terms[0].startswith("ISO_IR")):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encodings = convert_encodings(list(terms))
            encoded = encode_string(text, encodings)
            same = decode_bytes(encoded, encodings, TEXT_VR_DELIMS) == text
        except (LookupError, UnicodeError, ValueError):
            return False
    # The default repertoire of the first term has no byte above 0x7F; pydicom takes it for Latin-1.
    return same and (not japanese or encoded.isascii())
