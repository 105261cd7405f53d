"""The whole path computes what a hand-written kNN computes: the figure of the published split, reproduced."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from dicom_node.config import Eligibility
from dicom_node.score.bank_store import BankStore
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.scorer import Analyser
from tests.unit.score.builders import SHARED
from training.build import Order, build

DATA = SHARED / "zhanglab224"


@pytest.mark.data
@pytest.mark.slow
def test_lite0_reproduces_its_auroc_on_the_official_split(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("shared/data/zhanglab224 is absent")
    mean, std = NORMALISATIONS["127"]
    order = Order(
        images=DATA / "train" / "NORMAL",
        out=tmp_path,
        views=("squash",),
        k=5,
        preprocessing=Preprocessing(mean=mean, std=std),
        calibration="leave-one-out",
        keep_duplicates=True,
    )
    summary = build(
        order, created_at=datetime(2026, 1, 1, tzinfo=UTC), started=lambda _: None, progress=lambda _: None
    )
    assert summary.normal_images == 1341
    BankStore(tmp_path).activate("normals")
    analyser = Analyser(tmp_path, Eligibility(), threads=1)

    def scores(kind: str) -> list[float]:
        results = [analyser.analyse_file(path) for path in sorted((DATA / "test" / kind).iterdir())]
        assert all(result.score is not None for result in results)
        return [result.score.value for result in results if result.score is not None]

    normal, pneumonia = scores("NORMAL"), scores("PNEUMONIA")
    assert (len(normal), len(pneumonia)) == (234, 390)
    ranks = rankdata(np.array(normal + pneumonia))
    auroc = (ranks[234:].sum() - 390 * 391 / 2) / (234 * 390)
    assert auroc == pytest.approx(0.867, abs=0.005)
