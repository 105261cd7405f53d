from __future__ import annotations

from pydicom.uid import UID
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from dicom_node.domain import errors
from dicom_node.receive.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, is_storage, supported_contexts
from dicom_node.receive.status import MEANINGS, answer_error, error_comment, errors_by_status


def test_every_status_that_can_be_answered_has_a_meaning_and_is_the_standards():
    for status in errors_by_status():
        assert status in MEANINGS
    for status in MEANINGS:
        assert status in STORAGE_SERVICE_CLASS_STATUS


def test_each_error_stands_under_its_status():
    table = errors_by_status()
    assert "OutOfResourcesError" in table[0xA700]
    assert "DataSetMismatchError" in table[0xA900]
    assert table[0xC000] == ["CannotUnderstandError"]
    assert "StoreError" in table[0x0110]


def test_an_error_gives_its_status_and_its_message():
    answer = answer_error(errors.CannotUnderstandError("these are no\nDICOM bytes"))
    assert (answer.status, answer.comment) == (0xC000, "these are no DICOM bytes")


def test_a_comment_is_a_legal_long_string():
    assert error_comment("ä\\b") == "?/b"
    assert len(error_comment("x" * 64)) == 64
    long = error_comment("word " * 40)
    assert len(long) <= 64
    assert long.endswith("...")


def test_names_are_those_of_the_registry():
    for entry in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES):
        registered = UID(entry.uid).name
        assert not registered.startswith("1.2"), f"{entry.uid} is not registered"


def test_every_class_is_offered_in_every_syntax():
    offered = {str(c.abstract_syntax): {str(s) for s in c.transfer_syntax} for c in supported_contexts()}
    for storage in STORAGE_CLASSES:
        assert offered[storage.uid] == {syntax.uid for syntax in TRANSFER_SYNTAXES}
        assert is_storage(storage.uid)
    assert not any(is_storage(uid) for uid in offered if uid == "1.2.840.10008.1.1")


def test_no_report_class_is_offered():
    assert not [c for c in supported_contexts() if ".1.1.88." in str(c.abstract_syntax)]
