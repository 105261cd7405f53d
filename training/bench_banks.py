"""Rows of the benchmark from finished banks: whatever the product can build, judged by the product's own scorer.

A bank carries its own threshold and the scores it came from; nothing is trained or calibrated here.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import read_manifest
from dicom_node.score.files import read_image
from dicom_node.score.scoring import AnyScorer, load_scorer
from training.bench_features import Features
from training.bench_rows import BANK, Outcome, Row

_SHARD = 32


def bank_row(folder: Path) -> Row:
    """Return the row of a bank that was built from the training normals.

    Raises
    ------
    BankError
        If there is no bank, or it was not calibrated by held-out normals.
    """
    manifest = read_manifest(folder.resolve())
    if manifest.calibration == "leave-one-out":
        raise BankError(
            f"bank {manifest.name} was calibrated by leave-one-out; the benchmark wants held-out normals"
        )
    name = (
        f"{manifest.name}: {manifest.kind}, {manifest.backbone.name}, head {manifest.head}, "
        f"A {len(manifest.views)}, k {manifest.k}, {manifest.normal_images} normals"
    )
    return Row(BANK, name, partial(_run, folder.resolve()))


def _run(folder: Path, features: Features, _seed: int) -> Outcome:
    scorer = load_scorer(folder)
    seen = {hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in features.data.test.files}
    if seen & set(scorer.bank.images):
        raise BankError(f"bank {folder.name} holds {len(seen & set(scorer.bank.images))} of the test images")
    test = _scores(scorer, features.data.test.files, features)
    return Outcome(test, scorer.bank.calibration.scores, test)


def _scores(scorer: AnyScorer, files: tuple[Path, ...], features: Features) -> npt.NDArray[np.float64]:
    prep = scorer.bank.manifest.preprocessing
    values: list[float] = []
    for at in range(0, len(files), _SHARD):
        shard = files[at : at + _SHARD]
        greys = [read_image(path, window=prep.window, rescale=prep.rescale)[0] for path in shard]
        values += [score.value for score in scorer.score_images(greys)]
        features.told(f"{scorer.bank.manifest.name}: {len(values)} of {len(files)}")
    return np.array(values, dtype=np.float64)
