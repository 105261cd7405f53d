"""The files of indexes: as FAISS would write them, verified, mapped, and searched the same alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score import bank as bank_module
from dicom_node.score import knn
from dicom_node.score.bank import INDEX, load_bank
from dicom_node.score.index_file import CHUNK, Lists, flat_parts, open_index, write_flat
from dicom_node.score.manifest import IndexFacts, Manifest
from tests.unit.score.builders import unit

RNG = np.random.default_rng(0)
VECTORS = unit(RNG.normal(size=(3000, 24)))
QUERIES = unit(RNG.normal(size=(50, 24)))


def lists(probes: int = 4, vectors: np.ndarray = VECTORS) -> faiss.IndexIVFFlat:
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(24), 24, 16)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = probes
    return index


def facts(**changes: object) -> IndexFacts:
    values = {"kind": "ivf-flat", "lists": 16, "probes": 4, "recall": 1, "recall_k": 1, "recall_queries": 1}
    return IndexFacts.model_validate(values | changes)


@pytest.mark.parametrize("count", [1, 7, CHUNK + 3])
def test_a_flat_index_is_written_as_faiss_itself_writes_it(count: int, tmp_path: Path) -> None:
    vectors = np.tile(VECTORS, (6, 1))[:count]
    index = faiss.IndexFlatL2(24)
    index.add(vectors)
    expected = faiss.serialize_index(index).tobytes()
    assert b"".join(flat_parts(vectors)) == expected
    written = write_flat(tmp_path / "flat", vectors)
    assert (tmp_path / "flat").read_bytes() == expected
    assert (written.vectors, written.dim, written.facts) == (count, 24, None)


def test_a_mapped_flat_index_answers_as_one_in_memory(tmp_path: Path) -> None:
    write_flat(tmp_path / "flat", VECTORS)
    mapped = open_index(tmp_path / "flat", None, VECTORS.shape)
    read = open_index((tmp_path / "flat").read_bytes(), None, VECTORS.shape)
    for one, two in zip(knn.nearest(mapped, QUERIES, 5), knn.nearest(read, QUERIES, 5), strict=True):
        assert np.array_equal(one, two)


def test_a_query_finds_the_same_in_lists_alone_and_in_a_batch() -> None:
    index = Lists(lists())
    together, rows = knn.nearest(index, QUERIES, 3)
    for at, query in enumerate(QUERIES):
        alone, row = knn.nearest(index, query[None], 3)
        assert np.array_equal(alone[0], together[at])
        assert np.array_equal(row[0], rows[at])


def test_probing_every_list_is_exact() -> None:
    flat = open_index(b"".join(flat_parts(VECTORS)), None, VECTORS.shape)
    found, true = knn.nearest(Lists(lists(16)), QUERIES, 10), knn.nearest(flat, QUERIES, 10)
    assert np.array_equal(found[1], true[1])
    assert np.array_equal(found[0], true[0])


def test_where_the_probed_lists_hold_too_few_vectors_all_are_searched() -> None:
    few = VECTORS[:640]
    index = lists(1, few)
    assert (index.search(QUERIES, 200)[1] < 0).any()
    _, rows = knn.nearest(Lists(index), QUERIES, 200)
    assert (rows >= 0).all()
    assert all(len(set(row)) == 200 for row in rows.tolist())


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ({"lists": 8}, r"\(16, 4\); the manifest says ivf-flat with \(8, 4\)"),
        ({"probes": 16}, r"with \(16, 16\)"),
        ({"kind": "ivf-fp16"}, "IndexIVFFlat .* the manifest says ivf-fp16"),
    ],
)
def test_an_index_that_is_not_the_one_of_the_manifest_is_refused(said: dict[str, object], seen: str) -> None:
    content = faiss.serialize_index(lists()).tobytes()
    assert isinstance(open_index(content, facts(), VECTORS.shape), Lists)
    with pytest.raises(BankError, match=seen):
        open_index(content, facts(**said), VECTORS.shape)
    with pytest.raises(BankError, match="the manifest says flat"):
        open_index(content, None, VECTORS.shape)
    with pytest.raises(BankError, match=r"\(3000, 24\); the manifest says \(2999, 24\)"):
        open_index(content, facts(), (2999, 24))
    with pytest.raises(BankError, match="cannot be read"):
        open_index(content[:50], facts(), VECTORS.shape)


def test_a_large_index_is_verified_and_mapped(
    make_bank: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bank()
    folder = tmp_path / "banks" / "one"
    small = load_bank(folder)
    monkeypatch.setattr(bank_module, "MAPPED_FROM", 1)
    large = load_bank(folder)
    rows = np.arange(small.index.ntotal)
    assert np.array_equal(large.index.reconstruct_batch(rows), small.index.reconstruct_batch(rows))
    assert str(folder / INDEX) in Path("/proc/self/maps").read_text()
    content = bytearray((folder / INDEX).read_bytes())
    content[-1] ^= 1
    (folder / INDEX).unlink()
    (folder / INDEX).write_bytes(content)
    with pytest.raises(BankError, match=rf"{INDEX} has SHA-256 [0-9a-f]{{64}}; the manifest says"):
        load_bank(folder)


def test_a_manifest_without_lists_keeps_the_form_and_hash_it_had(
    make_bank: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = make_bank()
    assert manifest.index is None
    assert b'"index":' not in (tmp_path / "banks" / "one" / "manifest.json").read_bytes()
    assert manifest.model_copy(update={"index": facts()}).bank_hash != manifest.bank_hash
