"""BatchNorm statistics that drifted from the published ones: as bytes, and back into a network.

Deep kNN trains its head with the backbone in train mode: the weights stay, the running means and variances move
towards chests. A bank made that way stores them beside its head, and they are used wherever it embeds.
"""

from __future__ import annotations

import hashlib

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import STATISTICS


def layers(module: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers that keep running statistics."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats and part.running_mean is not None
    ]


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the running statistics by their names in the network's state, on the CPU."""
    wanted = {id(buffer) for layer in layers(module) for buffer in layer.buffers()}
    return {
        name: buffer.detach().cpu().clone() for name, buffer in module.named_buffers() if id(buffer) in wanted
    }


def restore(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Put statistics into a network of the same kind, in place.

    Raises
    ------
    BankError
        If the names or shapes are not those of the network, or a value is not finite or a variance negative.
    """
    own = {name: tuple(value.shape) for name, value in statistics(module).items()}
    given = {name: tuple(value.shape) for name, value in values.items()}
    if own != given:
        odd = sorted(set(own.items()) ^ set(given.items()))[:3]
        raise BankError(f"{STATISTICS} does not fit the backbone; they differ in {odd}")
    for name, value in values.items():
        if not torch.isfinite(value).all() or (name.endswith("running_var") and bool((value < 0).any())):
            raise BankError(f"{STATISTICS}: {name} is not finite or negative; the file is damaged")
    buffers = dict(module.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            buffers[name].copy_(value)


def to_bytes(module: nn.Module) -> bytes:
    """Return the running statistics as the bytes of a safetensors file."""
    return bytes(save_tensors(statistics(module)))


def from_bytes(content: bytes) -> dict[str, torch.Tensor]:
    """Read statistics back.

    Raises
    ------
    BankError
        If the bytes are no safetensors file.
    """
    try:
        return dict(load_tensors(content))
    except (safetensors.SafetensorError, ValueError) as error:
        raise BankError(f"{STATISTICS} cannot be read: {error}") from error


def digest(content: bytes) -> str:
    """Return the SHA-256 that names a set of statistics, "" for none."""
    return hashlib.sha256(content).hexdigest() if content else ""
