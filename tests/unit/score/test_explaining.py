"""An image that is scored is explained where that is asked for and a bank can tell places; never before its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.config import Eligibility, Explain
from dicom_node.score.bank_store import BankStore
from dicom_node.score.pixels import to_grey
from dicom_node.score.scorer import Analyser
from tests.unit.score.test_scorer import LITE0, PREP, build, chest
from training.patches import learn_patches


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("banks")
    patches = learn_patches(
        lambda: (to_grey(chest(seed)) for seed in range(6)),
        lambda: (to_grey(chest(seed)) for seed in range(10, 14)),
        LITE0,
        PREP,
        count=60,
    )
    build(folder, "patched", range(6), patches=patches)
    build(folder, "plain", range(6))
    return folder


def analyser(banks: Path, bank: str, explain: Explain) -> Analyser:
    BankStore(banks).activate(bank)
    return Analyser(banks, Eligibility(), threads=1, explain=explain)


def bright() -> np.ndarray:
    """Return stored values of an image with a spot that no normal has."""
    values = np.array(chest(3).pixel_array)
    values[40:80, 60:100] = 4095
    return values


def test_an_image_above_threshold_is_explained_in_its_own_pixels(banks: Path) -> None:
    ds = chest(3)
    ds.PixelData = bright().tobytes()
    result, explain = analyser(banks, "patched", "above").examine(ds)
    assert result.score is not None
    assert result.score.above
    assert explain is not None
    told = explain()
    assert (told.rows, told.columns) == (ds.Rows, ds.Columns)
    assert told.sop_instance_uid == result.sop_instance_uid
    assert told.value_range == (float(bright().min()), 4095.0)
    assert len(told.picture.rgb) == told.picture.rows * told.picture.columns * 3
    mask = np.unpackbits(np.frombuffer(told.mask, np.uint8), bitorder="little", count=ds.Rows * ds.Columns)
    assert (told.region is None) == (not mask.any())
    assert told == explain()


def test_nothing_is_explained_unless_it_is_asked_for_and_can_be_told(banks: Path) -> None:
    known, odd = chest(3), chest(99)
    assert analyser(banks, "patched", "never").examine(odd)[1] is None
    assert analyser(banks, "plain", "all").examine(odd)[1] is None
    assert analyser(banks, "patched", "above").examine(odd)[1] is not None
    result, explain = analyser(banks, "patched", "above").examine(known)
    assert result.score is not None
    assert result.score.above == (explain is not None)
    assert analyser(banks, "patched", "all").examine(known)[1] is not None
    assert analyser(banks, "patched", "all").examine(chest(3, Modality="CT"))[1] is None
