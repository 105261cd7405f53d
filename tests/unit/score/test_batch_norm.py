from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm
from dicom_node.score.backbone import TorchBackbone
from dicom_node.score.bank import STATISTICS, load_bank, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.scoring import Scorer
from tests.unit.score.builders import bank_facts, small_backbone, unit

BATCH = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3 + 1


def normed(seed: int = 0) -> TorchBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
    return TorchBackbone("normed", module, "1" * 64, licence="none", training_data="none", side=32)


def drifted() -> tuple[TorchBackbone, bytes]:
    backbone = normed()
    for layer in batch_norm.layers(backbone.module):
        layer.train()
    for _ in range(20):
        backbone.features(BATCH)
    backbone.module.eval()
    return backbone, batch_norm.to_bytes(backbone.module)


def test_training_mode_moves_the_statistics_and_nothing_else() -> None:
    before, (after, _) = normed(), drifted()
    old, new = before.module.state_dict(), after.module.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed == set(batch_norm.statistics(before.module))


def test_a_copy_with_the_statistics_embeds_as_the_drifted_network_and_leaves_the_original_alone() -> None:
    original, (moved, content) = normed(), drifted()
    untouched = original.embed(BATCH)
    twin = original.with_statistics(content)
    assert np.array_equal(twin.embed(BATCH), moved.embed(BATCH))
    assert np.array_equal(original.embed(BATCH), untouched)
    assert not np.allclose(twin.embed(BATCH), untouched, atol=1e-2)
    assert (twin.adapted, original.adapted) == (batch_norm.digest(content), "")


def test_statistics_of_another_network_or_damaged_ones_are_refused() -> None:
    _, content = drifted()
    with pytest.raises(BankError, match="does not fit the backbone"):
        small_backbone().with_statistics(content)
    with pytest.raises(BankError, match="cannot be read"):
        normed().with_statistics(content[:-3])
    values = batch_norm.from_bytes(content)
    values["1.running_var"][2] = -1.0
    with pytest.raises(BankError, match=r"1\.running_var is not finite or negative"):
        batch_norm.restore(normed().module, values)


def write(folder: Path, backbone: TorchBackbone, statistics: bytes) -> None:
    rng = np.random.default_rng(0)
    facts = bank_facts()
    facts["backbone"] |= {"name": backbone.name, "weights_sha256": backbone.weights_sha256}
    write_bank(
        folder,
        vectors=unit(rng.normal(size=(12, 24))),
        head=Head(),
        calibration=Calibration.of(rng.uniform(0.1, 0.5, size=20)),
        images=[f"image-{number}" for number in range(12)],
        facts=facts,
        statistics=statistics,
    )


def test_a_bank_with_statistics_scores_with_them_and_one_without_as_published(tmp_path: Path) -> None:
    moved, content = drifted()
    write(tmp_path / "own", moved, content)
    write(tmp_path / "plain", moved, b"")
    own, plain = (Scorer(load_bank(tmp_path / name), normed()) for name in ("own", "plain"))
    assert np.array_equal(own.backbone.embed(BATCH), moved.embed(BATCH))
    assert np.array_equal(plain.backbone.embed(BATCH), normed().embed(BATCH))
    assert own.bank.bank_hash != plain.bank.bank_hash
    assert not (tmp_path / "plain" / STATISTICS).exists()


def test_one_changed_bit_in_the_statistics_stops_the_load(tmp_path: Path) -> None:
    moved, content = drifted()
    write(tmp_path / "own", moved, content)
    path = tmp_path / "own" / STATISTICS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BankError, match=r"backbone_bn\.safetensors has SHA-256"):
        load_bank(tmp_path / "own")
    path.unlink()
    with pytest.raises(BankError, match="cannot be read"):
        load_bank(tmp_path / "own")
