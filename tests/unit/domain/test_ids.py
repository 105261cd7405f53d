"""UIDs and AE titles."""

from __future__ import annotations

import pytest

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_ae_title, check_uid, quoted_code, quoted_number


@pytest.mark.parametrize(
    "uid", ["1.2", "1.2.840.10008.1.1", "2.25." + "9" * 39, "0.0", "1.02", "1." + "1" * 62]
)
def test_valid_uids_pass(uid: str) -> None:
    assert check_uid(uid) == uid


@pytest.mark.parametrize(
    "uid", ["", "1", "1.", ".1", "1..2", "1.2a", "1.2\n", "1.2 ", "1." + "1" * 63, "../../etc", "१.२"]
)
def test_invalid_uids_are_told_apart_with_what_was_seen(uid: str) -> None:
    with pytest.raises(InvalidIdentifierError, match="StudyInstanceUID is"):
        check_uid(uid, "StudyInstanceUID")


def test_a_strict_check_refuses_leading_zeros() -> None:
    with pytest.raises(InvalidIdentifierError):
        check_uid("1.02", strict=True)


@pytest.mark.parametrize("title", ["A", "CR ROOM 1", "X" * 16, "  PADDED  "])
def test_valid_ae_titles_lose_only_their_padding(title: str) -> None:
    assert check_ae_title(title) == title.strip()


@pytest.mark.parametrize("title", ["", "   ", "X" * 17, "A\\B", "A\tB", "É"])
def test_invalid_ae_titles_are_refused(title: str) -> None:
    with pytest.raises(InvalidIdentifierError, match="1 to 16 printable ASCII"):
        check_ae_title(title)


def test_what_came_instead_of_a_code_or_a_number_is_not_quoted() -> None:
    assert quoted_code("FOR PROCESSING") == "'FOR PROCESSING'"
    assert quoted_code("SECRET^NAME") == "11 characters that are no code"
    assert quoted_number("-1.5e3 ") == "'-1.5e3 '"
    assert quoted_number("nan") == "'nan'"
    assert quoted_number("Secret") == "6 characters that are no number"
