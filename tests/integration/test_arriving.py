"""What an arriving study says of itself: real headers, and broken ones, against rules and a worklist's entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import Engine

from dicom_node.config import Gather, PriorityRule
from dicom_node.db.engine import reading, writing
from dicom_node.domain.types import Kind
from dicom_node.domain.urgency import HIGH, LOW, ROUTINE, STAT
from dicom_node.pipeline.arriving import NOTHING, Arrivals, Seen, accession_hash
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.store import expected
from tests.fuzz.seeds import AT_HAND
from tests.integration.test_pipeline import QUIET, Site
from tests.phantoms import chest_dataset

KEY = "key"
REAL = sorted(AT_HAND.glob("*.dcm")) if AT_HAND.exists() else []


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def _rules(*rules: dict[str, object]) -> list[PriorityRule]:
    return [PriorityRule.model_validate(rule) for rule in rules]


def _look(site: Site, study: str, *rules: dict[str, object], worklists: bool = True) -> Seen:
    made = [one.rule for one in _rules(*rules)]
    return Arrivals(site.engine, site.files, made, KEY, worklists=worklists).look(study, 1)


@pytest.mark.parametrize("path", REAL or [pytest.param(None, marks=pytest.mark.skip("no real images at hand"))])
def test_a_real_image_is_known_by_what_its_header_says(site: Site, path: Path) -> None:
    """As pydicom reads it: modality and body part for the rules, the accession number for the worklist."""
    ds = dcmread(path)
    modality, part, number = (
        str(ds.get(key) or "") for key in ("Modality", "BodyPartExamined", "AccessionNumber")
    )
    site.receive(ds, calling="CR7")
    seen = _look(
        site,
        ds.StudyInstanceUID,
        {"priority": "LOW", "modalities": ["CT"]},
        {
            "priority": "HIGH",
            "modalities": [modality],
            "calling_ae_titles": ["CR7"],
            **({"body_parts": [part]} if part else {}),
        },
        {"priority": "STAT", "calling_ae_titles": ["CR7"]},
    )
    assert seen.priority == HIGH
    assert seen.accession_hashes == ({accession_hash(KEY, number)} if number.strip() else set())


def _emptied(ds: Dataset) -> None:
    ds.Modality = ds.BodyPartExamined = ds.AccessionNumber = ""


def _absent(ds: Dataset) -> None:
    del ds.AccessionNumber


def _not_text(ds: Dataset) -> None:
    ds.add_new("AccessionNumber", "SQ", [Dataset()])
    ds.add_new("BodyPartExamined", "OB", b"\xff\xfe")


@pytest.mark.parametrize("spoil", [_emptied, _absent, _not_text])
def test_a_header_without_these_meets_no_rule_and_no_entry_and_the_study_goes_on(
    site: Site, spoil: Callable[[Dataset], None]
) -> None:
    ds = chest_dataset()
    spoil(ds)
    site.receive(ds)
    seen = _look(site, ds.StudyInstanceUID, {"priority": "STAT", "body_parts": ["CHEST"], "modalities": ["MG"]})
    assert seen == Seen()


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("written", ["CHEST", "chest", "Chest ", "CHEST\0"])
def test_body_parts_are_compared_without_case_and_padding(site: Site, written: str) -> None:
    ds = chest_dataset()
    ds.add_new("BodyPartExamined", "UN", written.encode())
    site.receive(ds)
    assert _look(site, ds.StudyInstanceUID, {"priority": "STAT", "body_parts": ["CHEST"]}).priority == STAT


def test_one_image_that_meets_a_rule_is_enough_and_the_first_rule_that_is_met_counts(site: Site) -> None:
    study = generate_uid()
    for number, part in enumerate(("ABDOMEN", "CHEST")):
        ds = chest_dataset(StudyInstanceUID=study, SOPInstanceUID=f"2.25.{number + 5}", BodyPartExamined=part)
        site.receive(ds, association=part)
    high, stat = ({"priority": name, "body_parts": ["CHEST"]} for name in ("HIGH", "STAT"))
    assert _look(site, study, {"priority": "LOW", "body_parts": ["HAND"]}, high, stat).priority == HIGH


def test_without_rules_and_worklists_no_header_is_read(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    for path in (site.files.root / "instances").rglob("*.dcm"):
        path.unlink()
    assert _look(site, ds.StudyInstanceUID, worklists=False) is NOTHING
    assert _look(site, ds.StudyInstanceUID) == Seen()  # what cannot be read says nothing


def _priority(site: Site, asked: int, source: str, *rules: dict[str, object]) -> int:
    """Return the priority of the analysis of a study that somebody asked for."""
    ds = chest_dataset()
    site.receive(ds)
    study = str(ds.StudyInstanceUID)
    with writing(site.engine) as conn:
        expected.put(conn, source=source, key="k", study_instance_uid=study, at=site.clock(), priority=asked)  # type: ignore[arg-type]
    site.associations.ended("a", "released")
    site.clock.forward(QUIET + 1)
    look = Arrivals(site.engine, site.files, [one.rule for one in _rules(*rules)], KEY, worklists=True).look
    assert close_quiet_revisions(site.engine, Gather(quiet_seconds=QUIET), site.clock, look) == 1
    (item,) = site.items(Kind.ANALYSE)
    return item.priority


CHESTS = {"modalities": ["DX"]}


@pytest.mark.parametrize(
    ("asked", "source", "rule", "given"),
    [
        (STAT, "mwl", "HIGH", STAT),
        (HIGH, "mwl", "STAT", STAT),
        (ROUTINE, "mwl", "LOW", LOW),
        (LOW, "fetch", "STAT", LOW),
        (LOW, "ups", "HIGH", LOW),
    ],
)
def test_of_a_worklist_and_a_rule_the_more_urgent_counts_but_what_is_low_stays_low(
    site: Site, asked: int, source: str, rule: str, given: int
) -> None:
    assert _priority(site, asked, source, {"priority": rule, **CHESTS}) == given


def test_an_entry_is_answered_by_study_uid_before_accession_number(site: Site) -> None:
    ds = chest_dataset(AccessionNumber=" A1")
    site.receive(ds)
    study, at = str(ds.StudyInstanceUID), site.clock()
    with writing(site.engine) as conn:
        for key, uid, number in (("one", study, "A9"), ("two", "", "A1"), ("three", "1.2.3", "A1")):
            expected.put(
                conn,
                source="mwl",
                key=f"ris:{key}",
                study_instance_uid=uid,
                at=at,
                accession_hash=accession_hash(KEY, number),
            )
    seen = _look(site, study)
    with writing(site.engine) as conn:
        assert expected.arrived(conn, study, seen.accession_hashes, at) == 1
    with reading(site.engine) as conn:
        assert expected.states(conn, "ris:") == {"ris:one": "arrived", "ris:two": "open", "ris:three": "open"}
