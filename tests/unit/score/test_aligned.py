"""Aligned-map kNN's score against an independent numpy reference; its bank against damage; the node serves it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicom_node.config import Config, load
from dicom_node.domain.errors import BankError, ConfigError
from dicom_node.score.align import cut, prepared, register
from dicom_node.score.aligned import ALGORITHM, AlignedScorer, nearest
from dicom_node.score.aligned_bank import FILES, Subspace, load_aligned_bank, write_aligned_bank
from dicom_node.score.aligned_facts import AlignedFacts
from dicom_node.score.aligned_maps import Atlas
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import load_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.feature_maps import lite_blocks
from dicom_node.score.manifest import Manifest, Preprocessing
from dicom_node.score.scorer import Analyser
from dicom_node.score.scoring import load_scorer
from dicom_node.score.views import make_views
from tests.unit.score.builders import bank_facts, image, small_backbone
from training.phantoms import make

LITE0 = load_backbone("lite0-random")
PREP = Preprocessing(size=64, resize_short=64)
FACTS = AlignedFacts(grid=4, fitted_images=20, held_out_images=4, seed=0)
CHANNELS = (40, 80, 112)
DIM = sum(CHANNELS) * 16
Q = 6


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def grey(seed: int) -> npt.NDArray[np.float32]:
    return make(seed, shape=(90, 80)).image


def square(seed: int) -> npt.NDArray[np.float32]:
    return make_views(grey(seed), ("squash",), 64, 64)[0]


@cache
def statistics() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and deviation of the network's channels over a few chests."""
    batch = torch.from_numpy(np.stack([square(seed) for seed in range(4)]))[:, None].repeat(1, 3, 1, 1)
    with torch.inference_mode():
        raw = lite_blocks(LITE0.module, batch - 0.5, (4, 7, 10))
    both = [
        torch.cat([of(one) for one in raw]) for of in (lambda m: m.mean((0, 2, 3)), lambda m: m.std((0, 2, 3)))
    ]
    return both[0].numpy(), both[1].numpy()


def write(folder: Path, *, rows: int = 20, deviation: float = 1.0, **changes: Any) -> Manifest:
    rng = np.random.default_rng(7)
    backbone = {"name": LITE0.name, "dim": LITE0.dim, "weights_sha256": LITE0.weights_sha256}
    basis = np.linalg.qr(rng.normal(size=(DIM, Q)))[0].T.astype(np.float16).astype(np.float32)
    mean, spread = statistics()
    atlas = Atlas(prepared(square(0)[None])[0, 0].numpy().astype(np.float32), mean, deviation * spread)
    facts = bank_facts(
        backbone=backbone | {"licence": "none", "training_data": "none"}, preprocessing=PREP, k=5, aligned=FACTS
    )
    return write_aligned_bank(
        folder,
        atlas=atlas,
        subspace=Subspace(rng.normal(size=DIM).astype(np.float32) * np.float32(0.001), basis),
        vectors=rng.normal(size=(rows, Q)).astype(np.float32) * np.float32(0.02),
        calibration=Calibration.of(rng.uniform(0.0, 0.002, size=20)),
        images=[f"image-{row}" for row in range(rows)],
        facts=facts | changes,
    )


def reference(scorer: AlignedScorer, seed: int) -> tuple[float, list[int]]:
    """Score in plain numpy from the network's raw maps on, place by place."""
    bank = scorer.bank
    placed = register(square(seed)[None], bank.atlas.template)[0]
    under = cut(square(seed), placed, FACTS.box, 64).astype(np.float64)
    mean, std = np.array(PREP.mean), np.array(PREP.std)
    batch = (under[None, None] - mean[None, :, None, None]) / std[None, :, None, None]
    with torch.inference_mode():
        raw = [
            m[0].double().numpy()
            for m in lite_blocks(LITE0.module, torch.from_numpy(batch).float(), (4, 7, 10))
        ]
    parts, at = [], 0
    for one in raw:
        channels, side, _ = one.shape
        step = side // 4
        pooled = one.reshape(channels, 4, step, 4, step).mean(axis=(2, 4))
        smooth = np.empty_like(pooled)
        for row in range(4):
            for column in range(4):
                near = pooled[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                smooth[:, row, column] = near.mean(axis=(1, 2))
        m = bank.atlas.mean[at : at + channels, None, None].astype(np.float64)
        s = bank.atlas.deviation[at : at + channels, None, None].astype(np.float64)
        at += channels
        standard = (smooth - m) / s
        standard = standard / np.sqrt((standard**2).sum(axis=0))
        flat = standard.ravel()
        parts.append(flat / np.sqrt((flat**2).sum()))
    vector = np.concatenate(parts) / np.sqrt(3)
    coordinates = bank.subspace.basis.astype(np.float64) @ (vector - bank.subspace.centre)
    distances = ((bank.vectors.astype(np.float64) - coordinates) ** 2).sum(axis=1)
    return float(np.sort(distances)[4]), np.argsort(distances)[:5].tolist()


def test_a_bank_comes_back_as_it_was_written_and_scores_as_the_reference(tmp_path: Path) -> None:
    manifest = write(tmp_path / "one")
    assert (manifest.kind, manifest.dim, manifest.vectors, manifest.views) == (
        "aligned-knn",
        Q,
        20,
        ("squash",),
    )
    scorer = load_scorer(tmp_path / "one")
    assert isinstance(scorer, AlignedScorer)
    assert scorer.bank.bank_hash == manifest.bank_hash == BankStore(tmp_path).verify("one")
    scores = scorer.score_images([grey(seed) for seed in range(4)])
    for seed, score in enumerate(scores):
        value, rows = reference(scorer, seed)
        assert score.value == pytest.approx(value, rel=1e-5)
        assert score.neighbours == tuple(f"image-{row}" for row in rows)
        assert score.above == (score.value > manifest.threshold)
        assert score.percentile == 100 * np.mean(scorer.bank.calibration.scores < score.value)
    values = [score.value for score in scores]
    assert max(values) > 1.05 * min(values)


def test_a_score_is_the_same_alone_in_a_batch_and_again(tmp_path: Path) -> None:
    write(tmp_path / "one")
    scorer = load_scorer(tmp_path / "one")
    together = scorer.score_images([grey(seed) for seed in range(3)])
    assert together == [scorer.score_images([grey(seed)])[0] for seed in range(3)]
    assert together == load_scorer(tmp_path / "one").score_images([grey(seed) for seed in range(3)])
    assert scorer.score_images([]) == []


def test_nearest_is_sorted_breaks_ties_by_row_and_knows_its_limits() -> None:
    bank = np.array([[2, 0], [0, 1], [0, 1], [0, 0]], dtype=np.float32)
    distances, rows = nearest(bank, np.zeros((1, 2), dtype=np.float32), 4)
    assert distances.tolist() == [[0, 1, 1, 4]]
    assert rows.tolist() == [[3, 1, 2, 0]]
    for count in (0, 5):
        with pytest.raises(BankError, match="a bank of 4 vectors"):
            nearest(bank, bank, count)


def test_an_image_that_cannot_be_registered_is_scored_as_it_lies_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "one")
    noise = np.random.default_rng(0).random((80, 80), dtype=np.float32)
    with caplog.at_level(logging.WARNING):
        (score,) = load_scorer(tmp_path / "one").score_images([noise])
    assert np.isfinite(score.value)
    (record,) = caplog.records
    assert record.getMessage() == "chest was not registered to the template; scored as it lies"
    assert "template" in record.__dict__["why"] or "position" in record.__dict__["why"]


def test_provenance_names_the_method(tmp_path: Path) -> None:
    manifest = write(tmp_path / "one")
    said = load_scorer(tmp_path / "one").provenance()
    assert (said.algorithm, said.k, said.backbone, said.head) == (ALGORITHM, 5, "lite0-random", "none")
    assert (said.bank_hash, said.site, said.views) == (manifest.bank_hash, "here", ("squash",))


@pytest.mark.parametrize("file", FILES)
def test_one_changed_bit_in_any_file_stops_the_load_and_names_the_file(file: str, tmp_path: Path) -> None:
    write(tmp_path / "one")
    path = tmp_path / "one" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BankError, match=rf"{file} has SHA-256 [0-9a-f]{{64}}; the manifest says"):
        load_scorer(tmp_path / "one")
    with pytest.raises(BankError, match=file):
        BankStore(tmp_path).activate("one")


def test_a_bank_of_one_kind_is_not_taken_for_another(tmp_path: Path, make_bank: Any) -> None:
    make_bank("knn")
    write(tmp_path / "banks" / "aligned")
    with pytest.raises(BankError, match="is of kind aligned-knn; deep-knn was asked for"):
        load_bank(tmp_path / "banks" / "aligned")
    with pytest.raises(BankError, match="is of kind deep-knn; aligned-knn was asked for"):
        load_aligned_bank(tmp_path / "banks" / "knn")


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one")
    with pytest.raises(BankError, match="was made with lite0-random"):
        AlignedScorer(load_aligned_bank(tmp_path / "one"), small_backbone())


def test_parts_that_do_not_fit_make_no_bank(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="kind is aligned-knn, and aligned is missing"):
        write(tmp_path / "one", aligned=None)
    with pytest.raises(BankError, match="k is 21"):
        write(tmp_path / "one", k=21)
    with pytest.raises(BankError, match="a channel has no spread"):
        write(tmp_path / "one", deviation=0.0)
    bank = load_aligned_bank_of(tmp_path / "fine")
    for changes, message in (
        ({"subspace": Subspace(bank.subspace.centre[1:], bank.subspace.basis)}, "basis is"),
        ({"subspace": Subspace(bank.subspace.centre, bank.subspace.basis + np.float32(1e-7))}, "float16"),
        ({"vectors": bank.vectors * np.float32(np.inf)}, "not all finite"),
        ({"atlas": Atlas(bank.atlas.template[1:], bank.atlas.mean, bank.atlas.deviation)}, "template is"),
    ):
        parts: dict[str, Any] = {"atlas": bank.atlas, "subspace": bank.subspace, "vectors": bank.vectors}
        with pytest.raises(BankError, match=message):
            write_aligned_bank(
                tmp_path / "one",
                **(parts | changes),
                calibration=bank.calibration,
                images=bank.images,
                facts=bank_facts(aligned=FACTS, preprocessing=PREP),
            )
    assert not (tmp_path / "one").exists()


def load_aligned_bank_of(folder: Path) -> Any:
    write(folder)
    return load_aligned_bank(folder)


@pytest.mark.parametrize(
    "wrong", [{"stages": ("blocks.7", "blocks.4")}, {"stages": ("head",)}, {"box": (0.5, 0.0, 0.4, 1.0)}]
)
def test_facts_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"stages|box"):
        AlignedFacts(fitted_images=20, held_out_images=4, seed=0, **wrong)


def test_stages_that_a_network_lacks_are_said() -> None:
    with pytest.raises(BankError, match="no EfficientNet-Lite with them"):
        lite_blocks(LITE0.module, torch.zeros(1, 3, 64, 64), (4, 16))


def test_the_node_serves_it_where_the_configuration_says_so(tmp_path: Path) -> None:
    manifest = write(tmp_path / "banks" / "one")
    BankStore(tmp_path / "banks").activate("one")
    section = Config.model_validate(
        {"score": {"banks": str(tmp_path / "banks"), "method": "aligned-knn"}}
    ).score
    node = Analyser.from_config(section)
    node.warm_up()
    ds = image(np.rint(make_views(grey(1), ("squash",), 160, 160)[0] * 4095), stored=12)
    result = node.analyse(ds)
    assert result.provenance is not None
    assert result.provenance.bank_hash == manifest.bank_hash
    assert result.score is not None


def test_both_does_not_score_with_it_so_it_cannot_decide_there() -> None:
    with pytest.raises(ConfigError, match=r"decides is .aligned-knn., which method .both. does not score with"):
        load(None, flags={"score": {"method": "both", "decides": "aligned-knn"}})
