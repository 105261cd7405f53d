"""The opacity that is drawn into normals to choose by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.score.files import read_image
from dicom_node.score.manifest import Preprocessing
from training.bench_features import planted
from training.phantoms_cli import run as draw
from training.planted import plant


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    draw(folder, 1, form="png", shape=(200, 180))
    (drawn,) = folder.glob("*.png")
    return drawn


@pytest.mark.parametrize("seed", range(20))
def test_one_lung_is_denser_and_nothing_else_is_changed(path: Path, seed: int) -> None:
    before, _ = read_image(path)
    after = plant(before, np.random.default_rng(seed))
    gained = after - before
    assert after.dtype == np.float32
    assert after.shape == before.shape
    assert gained.min() >= 0
    assert after.max() <= max(before.max(), 1.0)
    assert gained.max() > 0.1
    rows, columns = np.nonzero(gained > 0.5 * gained.max())
    assert 0.2 * 200 < rows.min() < rows.max() < 0.85 * 200
    left, right = gained[:, :90].sum(), gained[:, 90:].sum()
    assert max(left, right) > 0.9 * (left + right)
    assert 0.1 * 180 < columns.min() < columns.max() < 0.9 * 180


def test_an_image_gets_the_same_opacity_every_time_and_another_image_another(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(path.read_bytes())
    recipe = Preprocessing()
    first, again = (planted([path]).read(path, recipe) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(planted([other]).read(other, recipe), first)
    assert not np.array_equal(read_image(path)[0], first)
