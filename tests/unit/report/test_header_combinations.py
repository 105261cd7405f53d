"""Any combination of what real headers lack or spell wrongly ends in a valid, stored report of every class."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from dicom_node.domain.types import Verdict
from dicom_node.report import profile
from dicom_node.store.files import FileStore
from tests.peers_validators import dciodvfy
from tests.unit.report.builders import NAMES, USUAL, header, raw
from tests.unit.report.test_header import MISSPELLED, OFTEN_MISSING
from tests.unit.report.test_profile import CHARACTER_SETS, IODS
from tests.unit.report.test_validators import of_source

Changes = dict[str, bytes | None]


def sent_as() -> dict[str, list[bytes | None]]:
    """Return what each attribute may come as: absent, empty, or misspelled in one of its ways."""
    ways: dict[str, list[bytes | None]] = {keyword: [None, b""] for keyword in OFTEN_MISSING}
    for keyword, sent, _ in MISSPELLED.values():
        ways.setdefault(keyword, []).append(sent)
    return ways


WAYS = sent_as()
COMBINATIONS = st.fixed_dictionaries({}, optional={key: st.sampled_from(ways) for key, ways in WAYS.items()})
EVERYTHING_ABSENT: Changes = dict.fromkeys(OFTEN_MISSING)
EVERYTHING_EMPTY: Changes = dict.fromkeys(OFTEN_MISSING, b"")
EVERYTHING_MISSPELLED: Changes = {keyword: sent for keyword, sent, _ in MISSPELLED.values()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def test_the_combinations_are_of_all_the_known_variants() -> None:
    assert sum(map(len, WAYS.values())) >= 33


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sop_class", profile.CLASSES, ids=IODS.get)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(changes=EVERYTHING_ABSENT, verdict=Verdict.ABOVE, charset="ascii")
@example(changes=EVERYTHING_EMPTY, verdict=Verdict.FAILED, charset="cyrillic")
@example(changes=EVERYTHING_MISSPELLED, verdict=Verdict.NOT_ANALYSED, charset="iso 2022 japanese")
@given(
    changes=COMBINATIONS,
    verdict=st.sampled_from(Verdict),
    charset=st.sampled_from(CHARACTER_SETS),
)
def test_any_combination_of_header_faults_gives_a_valid_stored_report(
    folder: Path, sop_class: str, changes: Changes, verdict: Verdict, charset: str
) -> None:
    # A name of other letters under a character set that does not exist stays as it came, and no validator can read it.
    term, name = NAMES["ascii" if "SpecificCharacterSet" in changes else charset]
    source = header({"SpecificCharacterSet": term, "PatientName": name, **changes})
    report = profile.cut(of_source(verdict, source), sop_class)
    store = FileStore(folder / "store", 0)
    stored = store.read_report(store.put_report(report.content))
    assert dciodvfy(stored, folder, IODS[sop_class]) == []
    kept = dcmread(BytesIO(stored))
    if "PatientName" not in changes:
        assert raw(kept, "PatientName") == name
    if "PatientID" not in changes:
        assert raw(kept, "PatientID") == USUAL["PatientID"]
