"""An image that costs its scoring process: three strikes, then it alone is refused, and its study is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.domain.errors import PoisonError, ScorerAwayError
from dicom_node.domain.states import State
from dicom_node.domain.types import ImageResult, Kind, Verdict
from dicom_node.pipeline import admin
from dicom_node.report.text import render
from tests.fakes import scored
from tests.integration.test_pipeline import Site, _again
from tests.phantoms import chest_dataset


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def _poisoned_by(site: Site, *uids: str) -> list[str]:
    """Let these images cost their process; return the list in which every image looked at will stand."""
    looked_at: list[str] = []

    def judge(ds: Dataset) -> ImageResult:
        looked_at.append(str(ds.SOPInstanceUID))
        if ds.SOPInstanceUID in uids:
            raise PoisonError("decoding this image ended its process (signal 11, SIGSEGV)")
        return scored(ds)

    site.judge = judge
    return looked_at


def _work_for_long(site: Site) -> None:
    site.pass_quiet_time()
    for _ in range(6):
        site.work()
        site.clock.forward(1000)


def test_after_three_strikes_the_study_is_answered_and_its_item_waits_for_a_person(site: Site) -> None:
    ds = chest_dataset()
    looked_at = _poisoned_by(site, ds.SOPInstanceUID)
    site.receive(ds)
    _work_for_long(site)
    assert looked_at == [ds.SOPInstanceUID] * 3
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]
    (item,) = site.items(Kind.ANALYSE)
    told = f"image {ds.SOPInstanceUID}: decoding this image ended its process (signal 11, SIGSEGV)"
    assert (item.state, item.reason) == (State.FAILED, f"gave up after 3 attempts: {told}")
    assert sorted(name for name, _ in site.peer.kept) == ["pacs", "vna"]
    assert "ended its process" in render(site.peer.kept[0][1])


def test_the_good_image_beside_it_is_scored_and_the_report_names_the_bad_one(site: Site) -> None:
    ds = chest_dataset()
    bad = _again(ds)
    _poisoned_by(site, bad.SOPInstanceUID)
    site.receive(ds)
    site.receive(bad)
    _work_for_long(site)
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    assert [item.state for item in site.items(Kind.ANALYSE)] == [State.COMPLETED]
    assert "ended its process" in render(site.peer.kept[0][1])
    assert bad.SOPInstanceUID in render(site.peer.kept[0][1])


def test_an_image_that_costs_its_process_once_is_scored_at_the_next_attempt(site: Site) -> None:
    ds = chest_dataset()
    strikes = iter([True, False])

    def judge(image: Dataset) -> ImageResult:
        if next(strikes):
            raise PoisonError("decoding this image took longer than 120 s")
        return scored(image)

    site.judge = judge
    site.receive(ds)
    _work_for_long(site)
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    (item,) = site.items(Kind.ANALYSE)
    assert (item.state, item.attempts) == (State.COMPLETED, 2)


def test_a_person_may_have_it_tried_again_when_the_cause_is_mended(site: Site) -> None:
    ds = chest_dataset()
    _poisoned_by(site, ds.SOPInstanceUID)
    site.receive(ds)
    _work_for_long(site)
    site.judge = scored
    (item,) = site.items(Kind.ANALYSE)
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]


def test_a_scorer_that_cannot_be_started_costs_no_attempt_and_the_study_waits(site: Site) -> None:
    def away(_ds: Dataset) -> ImageResult:
        raise ScorerAwayError("the scoring process cannot be started (exit code 1); the log says more")

    ds = chest_dataset()
    site.judge = away
    site.receive(ds)
    _work_for_long(site)
    (item,) = site.items(Kind.ANALYSE)
    assert (item.state, item.attempts) == (State.SCHEDULED, 0)
    assert site.verdicts(ds.StudyInstanceUID) == []
    site.judge = scored
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
