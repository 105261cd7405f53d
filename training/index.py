"""Chooses and writes a bank's index: every vector compared, or inverted lists whose recall was measured.

Works on arrays that lie in files, a piece at a time: its memory does not grow with the bank.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from dicom_node.score.durable import write_synced_parts
from dicom_node.score.index_file import CHUNK, IndexFile, Lists, open_index, write_flat
from dicom_node.score.knn import Index, Rows, Vectors
from dicom_node.score.manifest import IndexFacts
from training.order import IndexOrder

RECALL = 0.99
"""What inverted lists must reach on normals that are not in the bank."""

QUERIES = 1000
"""At most about this many vectors measure it."""

MOST_LISTS, POINTS = 4096, 40
"""Lists, and the vectors from which the centre of each is learnt."""

_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Built:
    """An index as it was written, and open."""

    file: IndexFile
    searched: Index


class Exact:
    """Every vector of an array compared with every query, a piece of the array at a time.

    Parameters
    ----------
    vectors
        (M, D) float32; may lie in a file.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.ntotal = len(vectors)

    def search(self, x: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return squared distances and rows of the k nearest vectors, nearest first."""
        queries = np.ascontiguousarray(x, dtype=np.float32)
        distances = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        for at in range(0, self.ntotal, _ROWS):
            piece = self._vectors[at : at + _ROWS]
            near, which = faiss.knn(queries, piece, min(k, len(piece)))
            distances, rows = np.hstack([distances, near]), np.hstack([rows, which + at])
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]
            distances = np.take_along_axis(distances, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return distances, rows

    def reconstruct_batch(self, key: Rows) -> Vectors:
        """Return the vectors of these rows."""
        return self._vectors[key]


def build_index(
    order: IndexOrder, bank: Vectors, queries: Vectors | None, k: int, folder: Path, seed: int
) -> Built:
    """Write the index of a bank.

    Parameters
    ----------
    bank
        (N, A, D') float32, unit L2.
    queries
        (Q, A, D') of images not in the bank, which measure the recall; None to measure it with images of the
        bank, each without its own vectors.
    k
        Neighbours whose recall counts.
    folder
        For the file.
    seed
        Of the vectors that centres are learnt from, and of the queries.

    Raises
    ------
    BankError
        If a compressed index does not reach `RECALL`.
    """
    vectors = bank.reshape(-1, bank.shape[2])
    kind = order.kind
    if kind == "auto":
        kind = "flat" if len(vectors) <= order.flat_up_to else "ivf-flat"
    path = folder / "index.faiss"
    if kind == "flat":
        return Built(write_flat(path, vectors), Exact(vectors))
    random = np.random.default_rng(seed)
    empty = _trained(kind, vectors, random, seed)
    _write(path, empty, vectors)
    asked, truth, own = _truth(bank, queries, k, random)
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    facts = _probed(kind, index, asked, truth, own, bank.shape[1])
    empty.nprobe = facts.probes
    _write_head(path, _head(empty, len(vectors)))
    file = IndexFile(path, *vectors.shape, facts)
    return Built(file, open_index(path, facts, (len(vectors), vectors.shape[1])))


def list_count(vectors: int) -> int:
    """Return how many lists there are: a power of two near the square root, each with `POINTS` to learn from."""
    lists = min(MOST_LISTS, 1 << round(log2(max(1, vectors)) / 2))
    while lists > 1 and lists * POINTS > vectors:
        lists //= 2
    return lists


def _trained(kind: str, vectors: Vectors, random: np.random.Generator, seed: int) -> Any:
    lists, dim = list_count(len(vectors)), vectors.shape[1]
    centres = faiss.IndexFlatL2(dim)
    index: Any
    if kind == "ivf-flat":
        index = faiss.IndexIVFFlat(centres, dim, lists)
    else:
        index = faiss.IndexIVFScalarQuantizer(
            centres, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2
        )
    index.cp.seed = seed % 2**31
    chosen = random.choice(len(vectors), min(len(vectors), POINTS * lists), replace=False)
    index.train(vectors[np.sort(chosen)])
    return index


def _write(path: Path, empty: Any, vectors: Vectors) -> None:
    """Write lists as FAISS would, list by list; `empty` knows the centres and is left without vectors."""
    pieces = range(0, len(vectors), CHUNK)
    owner = np.concatenate([empty.quantizer.search(vectors[at : at + CHUNK], 1)[1][:, 0] for at in pieces])
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=empty.nlist)

    def parts() -> Iterator[bytes]:
        yield _head(empty, len(vectors))
        yield struct.pack("<4sQQ4sQ", b"ilar", empty.nlist, empty.code_size, b"full", empty.nlist)
        yield sizes.astype("<i8").tobytes()
        end = 0
        for number, size in enumerate(sizes.tolist()):
            rows, end = order[end : end + size], end + size
            for at in range(0, size, CHUNK):
                yield _codes(empty, number, vectors[rows[at : at + CHUNK]])
            yield rows.astype("<i8").tobytes()

    write_synced_parts(path, parts())


def _codes(index: Any, number: int, vectors: Vectors) -> bytes:
    given = np.ascontiguousarray(vectors)
    lists = np.full(len(given), number, dtype=np.int64)
    codes = np.empty((len(given), index.code_size), dtype=np.uint8)
    index.encode_vectors(len(given), *(faiss.swig_ptr(array) for array in (given, lists, codes)))
    return codes.tobytes()


def _head(empty: Any, count: int) -> bytes:
    """Return what stands before the lists in the file of an index of `count` vectors."""
    content = faiss.serialize_index(empty).tobytes()
    none = struct.pack("<4sQQ4sQ", b"ilar", empty.nlist, empty.code_size, b"sprs", 0)
    if not content.endswith(none) or content[8:16] != bytes(8):
        raise BankError(f"FAISS {faiss.__version__} writes another form of lists; use the pinned version")
    return content[:8] + struct.pack("<q", count) + content[16 : -len(none)]


def _write_head(path: Path, head: bytes) -> None:
    with path.open("r+b") as file:
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _truth(
    bank: Vectors, queries: Vectors | None, k: int, random: np.random.Generator
) -> tuple[Vectors, Rows, Rows | None]:
    """Return queries (Q, D'), the rows (Q, k) of their true neighbours, and the image of each if of the bank."""
    source, views = bank if queries is None else queries, bank.shape[1]
    count = min(len(source), max(1, QUERIES // views))
    images = np.sort(random.choice(len(source), count, replace=False))
    asked = np.ascontiguousarray(source[images].reshape(-1, bank.shape[2]))
    own = np.repeat(images, views) if queries is None else None
    return asked, _near(Exact(bank.reshape(-1, bank.shape[2])), asked, k, own, views), own


def _near(index: Index, asked: Vectors, k: int, own: Rows | None, views: int) -> Rows:
    if own is None:
        return knn.nearest(index, asked, k)[1]
    _, rows = knn.nearest(index, asked, min(index.ntotal, k + views))
    foreign = rows // views != own[:, None]
    first = np.argsort(~foreign, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, first, axis=1)


def _probed(kind: str, index: Any, asked: Vectors, truth: Rows, own: Rows | None, views: int) -> IndexFacts:
    """Return the facts with the fewest lists, doubling, that reach `RECALL`; leaves them set on the index."""
    lists, k = Lists(index), truth.shape[1]
    index.nprobe = 1
    while True:
        recall = _share(_near(lists, asked, k, own, views), truth)
        if recall >= RECALL:
            return IndexFacts(
                kind=kind,  # type: ignore[arg-type]
                lists=index.nlist,
                probes=index.nprobe,
                recall=round(float(recall), 4),
                recall_k=k,
                recall_queries=len(asked),
            )
        if index.nprobe == index.nlist:
            raise BankError(
                f"{kind} finds {recall:.3f} of the true neighbours even with all {index.nlist} lists; "
                f"{RECALL:g} is asked for: use ivf-flat"
            )
        index.nprobe = min(index.nlist, 2 * index.nprobe)


def _share(found: Rows, truth: Rows) -> float:
    return float(np.mean([np.isin(row, other).mean() for row, other in zip(truth, found, strict=True)]))


def index_recipe(order: IndexOrder, facts: IndexFacts | None) -> dict[str, str | int | float]:
    """Return what a manifest's recipe says of the index: nothing where it follows from the defaults."""
    if order == IndexOrder() and facts is None:
        return {}
    return {"index": order.kind, "flat_up_to": order.flat_up_to}


def index_of(recipe: Mapping[str, Any]) -> IndexOrder:
    """Return what a manifest's recipe asks for."""
    usual = IndexOrder()
    return IndexOrder(recipe.get("index", usual.kind), int(recipe.get("flat_up_to", usual.flat_up_to)))
