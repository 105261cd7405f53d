"""Inverted lists: written as FAISS would, chosen by a recall that is true, in a bank that scores alike."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import load_bank
from dicom_node.score.files import read_image
from dicom_node.score.index_file import Lists
from dicom_node.score.scoring import Scorer
from tests.training.test_build import built, order, pictures
from tests.unit.score.builders import unit
from training import index as index_module
from training.index import Exact, build_index, list_count
from training.order import IndexOrder
from training.recipe import order_like

LISTS = IndexOrder(flat_up_to=100)


def images(count: int, seed: int, views: int = 2, dim: int = 16) -> np.ndarray:
    """Return unit vectors (count, views, dim): images in clusters, the views of one near each other."""
    centres = np.random.default_rng(0).normal(size=(12, 1, dim))
    random = np.random.default_rng(seed)
    middle = centres[random.integers(12, size=count)] + 0.5 * random.normal(size=(count, 1, dim))
    return unit(middle + 0.2 * random.normal(size=(count, views, dim)))


BANK, OTHERS = images(1500, 1), images(300, 2)
FLAT = BANK.reshape(-1, 16)


def by_hand(queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-queries.astype(np.float64) @ FLAT.astype(np.float64).T, axis=1, kind="stable")[:, :k]


def test_comparing_piece_by_piece_finds_the_true_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_ROWS", 700)
    queries = OTHERS.reshape(-1, 16)
    assert np.array_equal(knn.nearest(Exact(FLAT), queries, 7)[1], by_hand(queries, 7))


def test_up_to_the_limit_the_index_is_flat_and_above_it_is_not(tmp_path: Path) -> None:
    flat = build_index(IndexOrder(flat_up_to=3000), BANK, OTHERS, 1, tmp_path, 0)
    assert flat.file.facts is None
    lists = build_index(IndexOrder(flat_up_to=2999), BANK, OTHERS, 1, tmp_path, 0)
    assert lists.file.facts is not None
    assert lists.file.facts.kind == "ivf-flat"
    assert isinstance(lists.searched, Lists)


@pytest.mark.parametrize(
    ("kind", "faiss_kind"), [("ivf-flat", faiss.IndexIVFFlat), ("ivf-fp16", faiss.IndexIVFScalarQuantizer)]
)
def test_lists_are_written_as_faiss_itself_writes_them(
    kind: str, faiss_kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "CHUNK", 97)
    monkeypatch.setattr(index_module, "RECALL", 0.5)
    built = build_index(IndexOrder(kind), BANK, OTHERS, 3, tmp_path, 0)  # type: ignore[arg-type]
    whole = faiss.read_index(str(built.file.path))
    assert isinstance(whole, faiss_kind)
    whole.reset()
    whole.add(FLAT)
    assert faiss.serialize_index(whole).tobytes() == built.file.path.read_bytes()


@pytest.mark.parametrize("k", [1, 5])
def test_the_recall_stated_is_the_recall_of_the_file(k: int, tmp_path: Path) -> None:
    built = build_index(LISTS, BANK, OTHERS, k, tmp_path, 0)
    facts = built.file.facts
    assert facts is not None
    assert (facts.recall_k, facts.recall_queries) == (k, 600)
    assert facts.recall >= 0.99
    assert 1 < facts.probes < facts.lists == list_count(3000)
    queries = OTHERS.reshape(-1, 16)
    found, true = knn.nearest(built.searched, queries, k)[1], by_hand(queries, k)
    by_set = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), true.tolist(), strict=True)])
    assert facts.recall == pytest.approx(by_set, abs=1e-4)
    index = faiss.read_index(str(built.file.path))
    index.nprobe = facts.probes // 2
    fewer = knn.nearest(Lists(index), queries, k)[1]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(true, fewer, strict=True)]) < 0.99


def test_without_other_images_the_recall_is_that_of_the_banks_own_without_themselves(tmp_path: Path) -> None:
    facts = build_index(LISTS, BANK, None, 1, tmp_path, 0).file.facts
    assert facts is not None
    assert facts.recall >= 0.99
    assert facts.probes > 1


def test_a_compressed_index_that_cannot_reach_the_recall_is_not_built(tmp_path: Path) -> None:
    copies = np.repeat(BANK[:60], 25, axis=0)
    near = unit(copies + 1e-5 * np.random.default_rng(0).normal(size=copies.shape))
    with pytest.raises(BankError, match=r"ivf-fp16 finds 0\.\d+ of the true neighbours even with all"):
        build_index(IndexOrder("ivf-fp16"), near, unit(BANK[:60] + 1e-5), 1, tmp_path, 0)


def test_a_bank_with_lists_scores_as_the_flat_one_and_says_what_it_is(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 150)
    one = built(order(folder, tmp_path / "out", name="flat", patches=0))
    two = built(order(folder, tmp_path / "out", name="lists", patches=0, index=LISTS))
    flat, lists = (load_bank(tmp_path / "out" / name) for name in ("flat", "lists"))
    facts = lists.manifest.index
    assert facts is not None
    assert flat.manifest.index is None
    assert facts.recall_queries == 2 * two.calibration_images
    assert lists.manifest.recipe["flat_up_to"] == 100
    assert one.vectors == two.vectors == lists.index.ntotal == 240
    assert "lists probed" in (tmp_path / "out" / "lists" / "MODEL_CARD.md").read_text()
    backbone = load_backbone("lite0-random")
    greys = [read_image(path)[0] for path in sorted(pictures(tmp_path / "new", 12, first=500).iterdir())]
    scores = [[s.value for s in Scorer(bank, backbone).score_images(greys)] for bank in (flat, lists)]
    assert np.mean(np.isclose(*scores, rtol=1e-5)) > 0.9
    again = order_like(lists, tmp_path / "out" / "lists", images=folder, name="x", calibration_images=None)
    assert again.index == LISTS
