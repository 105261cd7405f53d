"""A SALAD bank on disk: encoder, memory rows, calibration; written and verified as every bank is.

Owns the two files particular to the kind. Knows nothing of images, nor which bank is in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import CALIBRATION, IMAGES, read_calibration, read_files, write_files
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import BackboneFacts, Manifest
from dicom_node.score.salad_network import SaladEncoder

ENCODER = "encoder.safetensors"
MEMORY = "memory.safetensors"
FILES = (ENCODER, MEMORY, CALIBRATION, IMAGES)
"""Every file of a SALAD bank beside its manifest."""

ENCODER_NAME = "salad-encoder"


@dataclass(frozen=True, slots=True)
class SaladBank:
    """A SALAD bank in memory; every byte of it was checked against the manifest's hashes.

    Attributes
    ----------
    encoder
        In evaluation mode, without gradients.
    memory
        (N, D) float32, unit L2, one row for each normal image.
    images
        Identifier of each normal image: the SHA-256 of its file, shortened; nothing of the patient.
    """

    manifest: Manifest
    bank_hash: str
    encoder: SaladEncoder
    memory: npt.NDArray[np.float32]
    calibration: Calibration
    images: tuple[str, ...]


def write_salad_bank(
    folder: Path,
    *,
    encoder: SaladEncoder,
    memory: npt.NDArray[np.float32],
    calibration: Calibration,
    images: Sequence[str],
    facts: dict[str, Any],
) -> Manifest:
    """Write a SALAD bank: whole or not at all (see `dicom_node.score.bank.write_bank`).

    Parameters
    ----------
    memory
        (N, D) float32, unit L2, one row for each of `images`.
    facts
        The manifest's other fields; kind, encoder, views, counts, hashes and threshold are filled in here.

    Raises
    ------
    BankError
        If the folder exists, the name is unfit, or the parts do not fit each other.
    """
    if not np.allclose(np.linalg.norm(memory, axis=1), 1.0, atol=1e-4):
        raise BankError("the bank's memory rows are not of unit length")
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    contents = {
        ENCODER: bytes(save_tensors(state)),
        MEMORY: bytes(save_arrays({"memory": np.ascontiguousarray(memory, dtype=np.float32)})),
    }
    values = {
        **facts,
        "kind": "salad",
        "backbone": BackboneFacts(
            name=ENCODER_NAME,
            dim=memory.shape[1],
            weights_sha256=hashlib.sha256(contents[ENCODER]).hexdigest(),
            licence="as of the normal images",
            training_data=f"the {len(images)} normal images of this bank",
        ),
        "head": "none",
        "views": ("squash",),
        "dim": memory.shape[1],
        "vectors": memory.shape[0],
    }
    return write_files(folder, contents, calibration=calibration, images=images, facts=values)


def load_salad_bank(folder: Path) -> SaladBank:
    """Load a SALAD bank, comparing every file with its hash first.

    Raises
    ------
    BankError
        If a file is missing or is not what its hash says, or the bank is of another kind.
    """
    manifest, contents = read_files(folder, "salad", FILES)
    calibration, images = read_calibration(manifest, contents)
    if manifest.salad is None:
        raise BankError(f"bank {manifest.name} says nothing of its encoder; a bank of kind salad must")
    try:
        memory = load_arrays(contents[MEMORY])["memory"].astype(np.float32)
        encoder = SaladEncoder(manifest.preprocessing.size, manifest.salad.channels, manifest.dim)
        encoder.load_state_dict(load_tensors(contents[ENCODER]))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise BankError(f"bank {manifest.name} cannot be read: {str(error)[:300]}") from error
    if memory.shape != (manifest.vectors, manifest.dim):
        raise BankError(
            f"bank {manifest.name}: the memory is {memory.shape}; "
            f"the manifest says {manifest.vectors, manifest.dim}"
        )
    encoder.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SaladBank(manifest, manifest.bank_hash, encoder, memory, calibration, images)
