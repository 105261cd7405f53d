from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training import controls


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    grey = np.zeros((4, 5), dtype=np.float32)
    grey[1, 2] = 1.0
    # Inside the border: -4 at the spot, 1 beside and below it, 0 elsewhere.
    laplacian = np.array([[1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    assert controls.sharpness(grey) == pytest.approx(laplacian.var())
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert controls.sharpness(ramp) == pytest.approx(0.0, abs=1e-12)
    assert controls.sharpness(np.ones((2, 2), dtype=np.float32)) == 0.0


def test_size_and_mean_are_those_of_the_file_and_the_image(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    grey = np.array([[0.0, 0.5], [1.0, 0.5]], dtype=np.float32)
    assert controls.measure(tmp_path / "x", grey) == (5.0, 0.5, 0.0)


def test_a_control_is_turned_in_its_own_favour() -> None:
    labels = np.array([0, 0, 1, 1])
    values, sign = controls.oriented(labels, np.array([4.0, 3.0, 2.0, 1.0]))
    assert sign == -1
    assert values.tolist() == [-4.0, -3.0, -2.0, -1.0]
    assert controls.oriented(labels, np.array([1.0, 2.0, 3.0, 4.0]))[1] == 1
