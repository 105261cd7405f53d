"""What the scoring process costs: one image scored in this process and by a child, in turn, the same bank and image.

``DICOM_NODE_APART_IMAGES`` (12) images are scored by each, after one that warms up.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dicom_node.config import ScoreSection, Work
from dicom_node.domain.types import ImageResult
from dicom_node.node.working import SCORING_PROCESS
from dicom_node.pipeline.image import analyse
from dicom_node.score.apart import Apart
from dicom_node.score.bank_store import BankStore
from dicom_node.score.scorer import Analyser
from tests.live import build_bank
from tests.phantoms import chest_dataset, part10

IMAGES = int(os.environ.get("DICOM_NODE_APART_IMAGES", "12"))


def test_apart(tmp_path: Path) -> None:
    """Print the seconds of each and their ratio, for one view and for ten, and compare the scores."""
    for name, views in (("squash", "squash"), ("ten views", None)):
        folder = tmp_path / name.replace(" ", "-")
        build_bank(folder / "banks", folder, normals=30, views=views)
        BankStore(folder / "banks").activate("test")
        path = folder / "cr.dcm"
        path.write_bytes(part10(chest_dataset(seed=1, shape=(2500, 2048), form="cr", bits=14)))
        took: dict[str, list[float]] = {"here": [], "apart": [], "explained": []}
        plain = ScoreSection(banks=folder / "banks", explain="never")
        analyser = Analyser.from_config(plain)
        with _apart(plain) as apart, _apart(ScoreSection(banks=folder / "banks", explain="all")) as explains:
            for _ in range(IMAGES + 1):
                marks, scores = [time.monotonic()], []
                for one in (partial(analyse, score=analyser.analyse), apart.analyse, explains.analyse):
                    answer = one(path)
                    scores.append(answer.score if isinstance(answer, ImageResult) else answer.result.score)
                    marks.append(time.monotonic())
                for how, began, ended in zip(took, marks, marks[1:], strict=False):
                    took[how].append(ended - began)
                assert scores[0] is not None
                assert scores == [scores[0]] * 3
        here, apart_s, explained = (statistics.median(times[1:]) for times in took.values())
        print(
            f"\n{name}, CR of 2500 x 2048, median of {IMAGES}: in this process {here * 1000:.0f} ms, by the scoring "
            f"process {apart_s * 1000:.0f} ms, ratio {apart_s / here:.3f}; with its heat map {explained * 1000:.0f} ms"
        )


@contextmanager
def _apart(section: ScoreSection) -> Iterator[Apart]:
    process = Apart(SCORING_PROCESS, section, Work())
    process.warm_up()
    try:
        yield process
    finally:
        process.close()
