"""A bank's index as a file: its form, how it is opened, and how inverted lists are searched.

A flat index compares a query with every vector and is exact. Inverted lists compare it with those of the lists
whose centres lie nearest; how many of the true neighbours that finds was measured when the bank was built. A large
file is mapped into memory, not read: processes share it, and the system drops its pages where memory is short.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from dicom_node.domain.errors import BankError
from dicom_node.score.durable import write_synced_parts
from dicom_node.score.knn import Index, Rows, Vectors
from dicom_node.score.manifest import IndexFacts

MAPPED_FROM = 256 * 2**20
"""Bytes from which an index file is mapped; a smaller one is read, so that nothing can change it afterwards."""

CHUNK = 16_384
"""Vectors that are worked on at once where a bank is too large for memory."""

_ALONE = 16
"""Queries compared with the centres at once. From 20 on FAISS would compute distances with BLAS, whose last digits,
and so perhaps the choice of lists, depend on what shares the batch."""

_HEADER = struct.Struct("<4siqqqBiQ")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index that was written for a bank.

    Attributes
    ----------
    path
        On the file system of the bank's folder, into which it is moved.
    vectors, dim
        Its shape.
    facts
        None for a flat one.
    """

    path: Path
    vectors: int
    dim: int
    facts: IndexFacts | None = None


def flat_header(count: int, dim: int) -> bytes:
    """Return what stands before the float32 values in the file of a flat L2 index.

    Raises
    ------
    BankError
        If the installed FAISS writes another form: then this module does not know the file.
    """

    def form(vectors: int) -> bytes:
        return _HEADER.pack(b"IxF2", dim, vectors, 1 << 20, 1 << 20, 1, 1, vectors * dim)

    if faiss.serialize_index(faiss.IndexFlatL2(dim)).tobytes() != form(0):
        raise BankError(f"FAISS {faiss.__version__} writes another form of flat index; use the pinned version")
    return form(count)


def flat_parts(vectors: Vectors) -> Iterator[bytes]:
    """Yield the file of a flat L2 index over (M, D) float32 vectors, as FAISS itself would write it."""
    yield flat_header(*vectors.shape)
    for at in range(0, len(vectors), CHUNK):
        yield np.ascontiguousarray(vectors[at : at + CHUNK], dtype="<f4").tobytes()


def write_flat(path: Path, vectors: Vectors) -> IndexFile:
    """Write a flat index over (M, D) float32 vectors, a piece at a time."""
    write_synced_parts(path, flat_parts(vectors))
    return IndexFile(path, *vectors.shape)


class Lists:
    """Inverted lists that are searched the same way whatever shares the batch.

    Parameters
    ----------
    index
        FAISS's, with the number of lists to probe set.
    """

    def __init__(self, index: Any) -> None:
        index.make_direct_map()
        self._index = index
        self.ntotal: int = index.ntotal

    @property
    def shape(self) -> tuple[int, int]:
        """Return lists, and lists probed for a query."""
        return self._index.nlist, self._index.nprobe

    def search(self, x: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return squared distances and rows of the k nearest vectors in the probed lists.

        Where those hold fewer than k vectors, all lists are searched.
        """
        queries = np.ascontiguousarray(x, dtype=np.float32)
        probes = self._index.nprobe
        found = [
            self._index.quantizer.search(queries[at : at + _ALONE], probes)
            for at in range(0, len(queries), _ALONE)
        ]
        away, lists = (np.concatenate([part[side] for part in found]) for side in (0, 1))
        distances, rows = self._index.search_preassigned(queries, k, lists, away)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short):
            everywhere = faiss.SearchParametersIVF()
            everywhere.nprobe = self._index.nlist
            distances[short], rows[short] = self._index.search(queries[short], k, params=everywhere)
        return distances, rows

    def reconstruct_batch(self, key: Rows) -> Vectors:
        """Return the vectors of these rows: as stored, so of a compressed index only nearly the original."""
        vectors: Vectors = self._index.reconstruct_batch(key)
        return vectors


def open_index(source: bytes | Path, facts: IndexFacts | None, shape: tuple[int, int]) -> Index:
    """Return the index out of a file's content, or mapped from a file; verified by the caller.

    Parameters
    ----------
    facts
        What the manifest says of it.
    shape
        (M, D) that the manifest says.

    Raises
    ------
    BankError
        If it is no index, or not the one the manifest describes.
    """
    index: Any
    try:
        if isinstance(source, Path):
            index = faiss.read_index(str(source), faiss.IO_FLAG_MMAP_IFC)
        else:
            index = faiss.deserialize_index(np.frombuffer(source, dtype=np.uint8))
    except RuntimeError as error:
        raise BankError(f"the index cannot be read: {error}") from error
    if (index.ntotal, index.d) != shape:
        raise BankError(f"the index is {index.ntotal, index.d}; the manifest says {shape}")
    if facts is None:
        if not isinstance(index, faiss.IndexFlatL2):
            raise BankError(f"the index is {type(index).__name__}; the manifest says flat")
        flat: Index = index
        return flat
    wanted = {"ivf-flat": faiss.IndexIVFFlat, "ivf-fp16": faiss.IndexIVFScalarQuantizer}[facts.kind]
    seen = (index.nlist, index.nprobe) if isinstance(index, faiss.IndexIVF) else None
    if not isinstance(index, wanted) or seen != (facts.lists, facts.probes):
        raise BankError(
            f"the index is {type(index).__name__} with (lists, probes) {seen}; the manifest says {facts.kind} "
            f"with {facts.lists, facts.probes}"
        )
    return Lists(index)
