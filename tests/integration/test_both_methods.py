"""A study on its way through the node with two real banks, one of each kind: one report, both scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.config import ScoreSection
from dicom_node.domain.types import Verdict
from dicom_node.report import text
from dicom_node.score.bank_store import BankStore
from dicom_node.score.scorer import Analyser
from tests.integration.test_pipeline import Site
from tests.peers_validators import dciodvfy
from tests.phantoms import chest_dataset
from tests.unit.score.test_scorer_kinds import knn, salad


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("decides", ["deep-knn", "salad"])
def test_a_study_is_answered_with_both_scores_and_the_configured_method_decides(
    decides: str, engine: Engine, tmp_path: Path
) -> None:
    banks = tmp_path / "banks"
    knn(banks / "knn")
    salad(banks / "salad")
    BankStore(banks).activate("knn", "salad")
    section = ScoreSection.model_validate({"banks": banks, "method": "both", "decides": decides, "threads": 1})
    site = Site(engine, tmp_path / "store")
    site.judge = Analyser.from_config(section).analyse
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    content = site.peer.kept[0][1]
    said = text.facts(content)
    hashes = BankStore(banks).active_hashes()
    first, second = ("knn", "salad") if decides == "deep-knn" else ("salad", "knn")
    assert said["bank_hash"] == hashes[first]
    assert [beside["bank_hash"] for beside in said["images"][0]["also"]] == [hashes[second]]
    above = site.verdicts(ds.StudyInstanceUID) == [Verdict.ABOVE]
    assert above == said["above"] == (said["score"] > said["threshold"])
    assert dciodvfy(content, tmp_path) == []
