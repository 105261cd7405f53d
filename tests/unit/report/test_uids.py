from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.ids import check_uid
from dicom_node.domain.types import Verdict
from dicom_node.report import codes, uids


@given(st.text(), st.lists(st.one_of(st.text(), st.integers())))
def test_a_derived_uid_is_legal_and_always_the_same(device: str, parts: list[str | int]) -> None:
    uid = uids.derived(device, *parts)
    assert check_uid(uid) == uid
    assert uid == uids.derived(device, *parts)


def test_a_derived_uid_holds_a_version_5_uuid_of_the_rfc_variant() -> None:
    held = uuid.UUID(int=int(uids.derived("2.25.1", "report").removeprefix("2.25.")))
    assert (held.version, held.variant) == (5, uuid.RFC_4122)


def test_a_derived_uid_is_the_one_that_it_has_always_been() -> None:
    assert uids.derived("2.25.1", "report", "1.2.3", 1, "", "failed") == (
        "2.25." + str(uuid.uuid5(uuid.NAMESPACE_OID, '["2.25.1","report","1.2.3",1,"","failed"]').int)
    )
    assert codes.SCHEME_UID == "2.25.25363435130508909563531507960002045929"


def test_parts_do_not_run_into_each_other() -> None:
    assert uids.derived("1.2", "a", "bc") != uids.derived("1.2", "ab", "c")
    assert uids.derived("1.2", 1) != uids.derived("1.2", "1")


def test_a_report_differs_by_device_study_revision_bank_and_verdict() -> None:
    made = {
        uids.report_uid(device, study, revision, bank, verdict)
        for device in ("2.25.1", "2.25.2")
        for study in ("1.2.3", "1.2.4")
        for revision in (1, 2)
        for bank in ("", "ab")
        for verdict in Verdict
    }
    assert len(made) == 2 * 2 * 2 * 2 * 4
