"""A scoring process that gives every image a score and takes a while over it. Loads no torch, so it starts quickly."""

from __future__ import annotations

import time
from pathlib import Path

from dicom_node.domain.types import ImageResult
from dicom_node.pipeline.image import analyse
from dicom_node.score.child import Scoring, Setup, run
from tests.fakes import scored

_LONGEST = 0.4


def _analyse(path: Path, _bank: str) -> tuple[ImageResult, None]:
    time.sleep(int(path.stem[:4], 16) / 0x10000 * _LONGEST)
    return analyse(path, scored), None


def _scoring(_setup: Setup) -> Scoring:
    return Scoring(lambda _bank: None, lambda _bank: False, _analyse)


if __name__ == "__main__":
    run(_scoring)
