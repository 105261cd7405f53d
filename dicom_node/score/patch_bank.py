"""A bank's patches: what places of normal chests look like, and how far other normals' places lie from them.

Owns the file ``patches.safetensors``. Knows nothing of images or networks. Pure; does no I/O.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dicom_node.domain.errors import BankError
from dicom_node.score.heat_scale import LEVELS, HeatScale

FILE = "patches.safetensors"

Floats = npt.NDArray[np.float32]

_TENSORS = {"vectors": 2, "positions": 2, "normal": 1, "peaks": 1}


@dataclass(frozen=True, slots=True)
class Places:
    """What a network sees at the places of images.

    Attributes
    ----------
    vectors
        (P, D) float32, unit L2.
    positions
        (P, 2) float32, row and column of each place's centre as shares of the image's height and width.
    """

    vectors: Floats
    positions: Floats

    def joined(self, weight: float) -> Floats:
        """Return features and weighted positions side by side, (P, D + 2) float32."""
        return np.hstack([self.vectors, np.float32(weight) * self.positions])


@dataclass(frozen=True, slots=True)
class PatchBank(HeatScale):
    """Patches of normal chests with their places, and what distances held-out normals have to them.

    Attributes
    ----------
    vectors
        (M, D) float32, unit L2.
    positions
        (M, 2) float32, row and column of each patch's centre as shares of its image's height and width.
    stage
        Of the backbone; see `feature_maps.stage_of`.
    views
        Whose maps are laid over each other.
    shift
        How far the map's cells look from where they lie, down and across, as shares of a view's side.
    position_weight
        Distance that a displacement by the image's whole height or width counts as; 0 compares places anywhere.
    coreset, seed, references
        How the patches were chosen, by which seed, out of how many images.
    """

    vectors: Floats
    positions: Floats
    stage: str
    views: tuple[str, ...]
    shift: tuple[float, float]
    position_weight: float
    coreset: str
    seed: int
    references: int

    def distances(self, places: Places) -> Floats:
        """Return how far each place lies from the nearest patch.

        Returns
        -------
        numpy.ndarray
            (P,) float32, sqrt(|f - g|^2 + (weight * displacement)^2) at its least over the bank, with f and g
            of unit length.

        Raises
        ------
        BankError
            If the places have other features than the patches.
        """
        if places.vectors.shape[1] != self.vectors.shape[1]:
            raise BankError(
                f"patches have {self.vectors.shape[1]} features; the image's have {places.vectors.shape[1]}"
            )
        return nearest(places, Places(self.vectors, self.positions), self.position_weight)


def patches_of(maps: Floats) -> Floats:
    """Return the places of maps (N, D, h, w) as (N * h * w, D) float32, row by row, of unit length or zero."""
    depth = maps.shape[1]
    flat = np.ascontiguousarray(maps.transpose(0, 2, 3, 1)).reshape(-1, depth)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise BankError("a patch's features are not finite; the backbone is damaged")
    return np.asarray(flat / np.where(norms == 0.0, 1.0, norms), dtype=np.float32)


def nearest(queries: Places, bank: Places, weight: float) -> Floats:
    """Return each query's least distance (Q,) float32; see `PatchBank.distances`."""
    out = np.empty(len(queries.vectors), dtype=np.float32)
    mine, theirs = queries.joined(weight), bank.joined(weight)
    lengths = np.square(theirs).sum(axis=1)
    for at in range(0, len(mine), 256):  # bounds the memory to 256 x M
        part = mine[at : at + 256]
        squared = np.square(part).sum(axis=1) + (lengths - 2.0 * (part @ theirs.T)).min(axis=1)
        out[at : at + 256] = np.sqrt(np.maximum(squared, 0.0))
    return out


def save_patches(bank: PatchBank) -> bytes:
    """Return the content of ``patches.safetensors``."""
    facts = {
        "stage": bank.stage,
        "views": list(bank.views),
        "shift": list(bank.shift),
        "position_weight": bank.position_weight,
        "coreset": bank.coreset,
        "seed": bank.seed,
        "references": bank.references,
    }
    tensors = {name: np.ascontiguousarray(getattr(bank, name), dtype=np.float32) for name in _TENSORS}
    return bytes(save_tensors(tensors, metadata={"facts": json.dumps(facts)}))


def load_patches(content: bytes) -> PatchBank:
    """Read patches back.

    Raises
    ------
    BankError
        If the bytes are no such file, or its parts do not fit each other.
    """
    try:
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        facts: Any = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
        bank = PatchBank(
            **{name: tensors[name] for name in _TENSORS},
            stage=str(facts["stage"]),
            views=tuple(map(str, facts["views"])),
            shift=(float(facts["shift"][0]), float(facts["shift"][1])),
            position_weight=float(facts["position_weight"]),
            coreset=str(facts["coreset"]),
            seed=int(facts["seed"]),
            references=int(facts["references"]),
        )
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BankError(f"{FILE} cannot be read: {error}") from error
    shapes = {name: tensors[name].shape for name in _TENSORS}
    if (
        any(len(shapes[name]) != dimensions for name, dimensions in _TENSORS.items())
        or shapes["positions"] != (shapes["vectors"][0], 2)
        or shapes["normal"] != LEVELS.shape
        or 0 in shapes["peaks"]
        or not bank.views
    ):
        raise BankError(f"{FILE}: the parts do not fit each other: {shapes}")
    return bank
