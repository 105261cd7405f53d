"""Rows of the benchmark from finished banks: whatever the product can build, judged by the product's own scorer.

A bank carries its own threshold and the scores it came from; nothing is trained or calibrated here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import read_manifest
from dicom_node.score.scoring import AnyScorer, load_scorer
from training.bench_features import Features, Part, planted
from training.bench_rows import BANK, Outcome, Row

_SHARD = 32
_SEED = re.compile(r"-s(\d+)$")


def bank_rows(folders: Sequence[Path]) -> list[Row]:
    """Return the rows of banks that were built from the training normals.

    Banks that differ in nothing but the seed at the end of their names, such as chest-s0, chest-s1, are one row.

    Raises
    ------
    BankError
        If there is no bank, or it was not calibrated by held-out normals.
    """
    grouped: dict[str, dict[int, tuple[Path, int]]] = {}
    for folder in folders:
        place = folder.resolve()
        manifest = read_manifest(place)
        if manifest.calibration == "leave-one-out":
            raise BankError(
                f"bank {manifest.name} was calibrated by leave-one-out; the benchmark wants held-out normals"
            )
        seed = _SEED.search(manifest.name)
        told = (
            f"{_SEED.sub('', manifest.name)}: {manifest.kind}, {manifest.backbone.name}, head {manifest.head}, "
            f"A {len(manifest.views)}, k {manifest.k}"
        )
        banks = grouped.setdefault(told, {})
        banks[int(seed.group(1)) if seed else 0] = place, manifest.normal_images
    return [_row(told, banks) for told, banks in grouped.items()]


def _row(told: str, banks: Mapping[int, tuple[Path, int]]) -> Row:
    normals = " to ".join(map(str, sorted({count for _, count in banks.values()})))
    run = partial(_run, {seed: folder for seed, (folder, _) in banks.items()})
    return Row(BANK, f"{told}, {normals} normals", run, tuple(sorted(banks)))


def _run(banks: Mapping[int, Path], features: Features, seed: int) -> Outcome:
    folder = banks[seed]
    scorer = load_scorer(folder)
    seen = set(map(_identifier, features.data.test.files))
    if seen & set(scorer.bank.images):
        raise BankError(f"bank {folder.name} holds {len(seen & set(scorer.bank.images))} of the test images")
    inside = set(scorer.bank.images)
    held = [path for path in features.data.train.files if _identifier(path) not in inside]
    test = _scores(scorer, features.data.test, features)
    asked = (_scores(scorer, part, features) for part in (planted(held), features.data.validation))
    return Outcome(test, scorer.bank.calibration.scores, test, *asked)


def _identifier(path: Path) -> str:
    """Return what a bank calls an image by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _scores(scorer: AnyScorer, part: Part, features: Features) -> npt.NDArray[np.float64]:
    values: list[float] = []
    for at in range(0, len(part.files), _SHARD):
        greys = [part.read(path, scorer.bank.manifest.preprocessing) for path in part.files[at : at + _SHARD]]
        values += [score.value for score in scorer.score_images(greys)]
        features.told(f"{scorer.bank.manifest.name}, {part.name}: {len(values)} of {len(part.files)}")
    return np.array(values, dtype=np.float64)
