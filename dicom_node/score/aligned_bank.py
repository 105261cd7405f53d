"""An aligned-knn bank on disk: template, channel statistics, subspace, vectors; written and verified as every bank.

Owns the files particular to the kind. Knows nothing of images, nor which bank is in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from dicom_node.domain.errors import BankError
from dicom_node.score.align import SIDE
from dicom_node.score.aligned_maps import Atlas
from dicom_node.score.aligned_places import FILE as PLACES
from dicom_node.score.aligned_places import Places, load_places, save_places
from dicom_node.score.bank import CALIBRATION, IMAGES, read_calibration, read_files, write_files
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest

ATLAS = "atlas.safetensors"
SUBSPACE = "subspace.safetensors"
VECTORS = "vectors.safetensors"
FILES = (ATLAS, SUBSPACE, VECTORS, CALIBRATION, IMAGES)
"""Every file of an aligned-knn bank beside its manifest."""


@dataclass(frozen=True, slots=True)
class Subspace:
    """The normals' principal subspace.

    Attributes
    ----------
    centre
        (D,) float32, mean of the normals' vectors.
    basis
        (q, D) float32 whose values are those of float16, as which they are stored: at D = 45 472 a direction
        takes 91 kB. Vectors of bank and query are projected on the same rounded basis.
    """

    centre: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]

    def project(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the coordinates (N, q) float32 of vectors (N, D)."""
        return np.ascontiguousarray((vectors - self.centre) @ self.basis.T)

    def shown(self, coordinates: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the vectors (N, D) float32 that have these coordinates (N, q) and nothing beyond the subspace."""
        return np.ascontiguousarray(self.centre + coordinates @ self.basis)


@dataclass(frozen=True, slots=True)
class AlignedBank:
    """An aligned-knn bank in memory; every byte of it was checked against the manifest's hashes.

    Attributes
    ----------
    vectors
        (N, q) float32, one row for each normal image.
    images
        Identifier of each normal image: the SHA-256 of its file, shortened; nothing of the patient.
    places
        What heat maps are calibrated with; banks built before there were any have none.
    """

    manifest: Manifest
    bank_hash: str
    atlas: Atlas
    subspace: Subspace
    vectors: npt.NDArray[np.float32]
    calibration: Calibration
    images: tuple[str, ...]
    places: Places | None = None


def write_aligned_bank(
    folder: Path,
    *,
    atlas: Atlas,
    subspace: Subspace,
    vectors: npt.NDArray[np.float32],
    calibration: Calibration,
    images: Sequence[str],
    facts: dict[str, Any],
    places: Places | None = None,
) -> Manifest:
    """Write an aligned-knn bank: whole or not at all (see `dicom_node.score.bank.write_bank`).

    Parameters
    ----------
    vectors
        (N, q) float32, one row for each of `images`.
    facts
        The manifest's other fields, `aligned` among them; kind, head, views, counts, hashes and threshold are
        filled in here.
    places
        For heat maps, if there shall be any.

    Raises
    ------
    BankError
        If the folder exists, the name is unfit, or the parts do not fit each other.
    """
    _check(atlas, subspace, vectors)
    contents = {
        ATLAS: bytes(
            save_arrays({"template": atlas.template, "mean": atlas.mean, "deviation": atlas.deviation})
        ),
        SUBSPACE: bytes(save_arrays({"centre": subspace.centre, "basis": subspace.basis.astype(np.float16)})),
        VECTORS: bytes(save_arrays({"vectors": np.ascontiguousarray(vectors, dtype=np.float32)})),
    }
    contents |= {} if places is None else {PLACES: save_places(places)}
    values = {
        **facts,
        "kind": "aligned-knn",
        "head": "none",
        "views": ("squash",),
        "dim": vectors.shape[1],
        "vectors": vectors.shape[0],
    }
    return write_files(folder, contents, calibration=calibration, images=images, facts=values)


def load_aligned_bank(folder: Path) -> AlignedBank:
    """Load an aligned-knn bank, comparing every file with its hash first.

    Raises
    ------
    BankError
        If a file is missing or is not what its hash says, or the bank is of another kind.
    """
    manifest, contents = read_files(folder, "aligned-knn", FILES, (PLACES,))
    calibration, images = read_calibration(manifest, contents)
    try:
        atlas = Atlas(**load_arrays(contents[ATLAS]))
        found = load_arrays(contents[SUBSPACE])
        subspace = Subspace(found["centre"], found["basis"].astype(np.float32))
        vectors = load_arrays(contents[VECTORS])["vectors"]
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise BankError(f"bank {manifest.name} cannot be read: {str(error)[:300]}") from error
    _check(atlas, subspace, vectors)
    if vectors.shape != (manifest.vectors, manifest.dim):
        raise BankError(
            f"bank {manifest.name}: the vectors are {vectors.shape}; "
            f"the manifest says {manifest.vectors, manifest.dim}"
        )
    places = load_places(contents[PLACES]) if PLACES in contents else None
    return AlignedBank(manifest, manifest.bank_hash, atlas, subspace, vectors, calibration, images, places)


def _check(atlas: Atlas, subspace: Subspace, vectors: npt.NDArray[np.float32]) -> None:
    shapes = {
        "template": (atlas.template.shape, (SIDE, SIDE)),
        "deviation": (atlas.deviation.shape, atlas.mean.shape),
        "basis": (subspace.basis.shape, (vectors.shape[1], len(subspace.centre))),
    }
    for name, (seen, right) in shapes.items():
        if seen != right:
            raise BankError(f"the bank's {name} is {seen}; {right} is right")
    if not np.array_equal(subspace.basis, subspace.basis.astype(np.float16)):
        raise BankError("the bank's basis was not rounded to float16 before vectors were projected on it")
    if not (np.isfinite(vectors).all() and (atlas.deviation > 0).all()):
        raise BankError("the bank's vectors are not all finite, or a channel has no spread")
