"""Reads weights files: state dicts saved by torch or as safetensors, never code."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises; nothing is unpickled here

import safetensors
import torch
from safetensors.torch import load as load_tensors

from dicom_node.domain.errors import BankError

State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Weights:
    """A local weights file, and what is known of its origin ("" where nobody said)."""

    path: Path
    licence: str = ""
    training_data: str = ""


_DAMAGED = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    AttributeError,
    safetensors.SafetensorError,
)


def read_weights(path: Path, part: str = "") -> tuple[State, str]:
    """Return the state dict of a file and the file's SHA-256.

    Parameters
    ----------
    path
        Told apart by its content, not by its name.
    part
        Key under which the state dict stands, for files that hold several.

    Raises
    ------
    BankError
        If the file cannot be read, holds anything but tensors, or lacks the part.
    """
    try:
        content = path.read_bytes()
        if content[8:9] == b"{":
            state = load_tensors(content)
        else:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise BankError(f"weights {path.name} cannot be read: {error.strerror}") from error
    except _DAMAGED as error:
        raise BankError(
            f"weights {path.name} are no plain state dict saved by torch: {str(error)[:200]}"
        ) from error
    if part and (not isinstance(state, dict) or part not in state):
        raise BankError(f"weights {path.name} have no part {part!r}; another network's file was given")
    inner = state[part] if part else state
    if not isinstance(inner, dict) or not all(isinstance(value, torch.Tensor) for value in inner.values()):
        raise BankError(f"weights {path.name} are not a plain mapping of names to tensors")
    return dict(inner), hashlib.sha256(content).hexdigest()


def hash_tensors(state: State) -> str:
    """Return a SHA-256 over names and values, for networks that come from no file."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode())
        total.update(state[key].contiguous().numpy().tobytes())
    return total.hexdigest()
