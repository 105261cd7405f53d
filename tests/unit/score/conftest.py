"""Banks of random vectors for the tests of the score room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.score.bank import write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.manifest import Manifest
from tests.unit.score.builders import bank_facts, unit


@pytest.fixture
def make_bank(tmp_path: Path) -> Callable[..., Manifest]:
    """Write a bank of random unit vectors below tmp_path / "banks"."""

    def make(name: str = "one", *, seed: int = 0, vectors: Any = None, **changes: Any) -> Manifest:
        rng = np.random.default_rng(seed)
        array = unit(rng.normal(size=(12, 24))) if vectors is None else vectors
        facts = bank_facts(**changes)
        count = len(array) // len(facts["views"])
        return write_bank(
            tmp_path / "banks" / name,
            vectors=array,
            head=Head(),
            calibration=Calibration.of(rng.uniform(0.1, 0.5, size=20)),
            images=[f"image-{number}" for number in range(count)],
            facts=facts,
        )

    return make
