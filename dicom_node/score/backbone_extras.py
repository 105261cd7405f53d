"""Backbones that need a weights file: torchvision's, the paper's ResNet-50s, networks of optional packages.

Each loader takes a local weights file and imports its package only when it is called. What a file's layout is
was read from the programs that write it, named at each loader. Licence and training data are those of the
published weights; where a file comes from elsewhere, whoever builds the bank says so (`Weights`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import TorchBackbone, from_state
from dicom_node.score.torchvision_ops import import_models
from dicom_node.score.weights import State, Weights, read_weights

Loader = Callable[[str, str, Weights], TorchBackbone]

_BLOCKS = (3, 4, 6, 3)
_BLOCK_PARTS = {
    "net.0": "conv1", "net.1.0": "bn1", "net.2": "conv2", "net.3.0": "bn2", "net.4": "conv3", "net.5.0": "bn3",
    "projection.shortcut": "downsample.0", "projection.bn.0": "downsample.1",
}  # fmt: skip


def torchvision(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load any classifier of torchvision without its last layer.

    Raises
    ------
    BankError
        If there is no such classifier, or the file is damaged or of another network.
    """
    models = import_models()
    if short not in models.list_models(module=models):
        raise BankError(f"torchvision has no classifier {short!r}")
    module: nn.Module = models.get_model(short, weights=None)
    state, seen = read_weights(weights.path)
    classifier = next((part for part in ("fc", "classifier", "heads", "head") if hasattr(module, part)), None)
    if classifier is None:
        raise BankError(f"{name} has no classifier layer that could be taken off; use another network")
    setattr(module, classifier, nn.Flatten(1))
    kept = {key: value for key, value in state.items() if key.split(".")[0] != classifier}
    return from_state(name, module, kept, seen, weights)


def barlow_twins(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load the ResNet-50 that Barlow Twins publishes as ``resnet50.pth``: torchvision's keys without ``fc``.

    Raises
    ------
    BankError
        If `short` is not resnet50, or the file is damaged or of another network.
    """
    _only(name, short, "resnet50")
    state, sha256 = read_weights(weights.path)
    return _resnet50(
        name, state, sha256, weights, licence="CC-BY-NC-4.0", data="ImageNet-1k, self-supervised (Barlow Twins)"
    )


def simclrv2(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load SimCLRv2's ResNet-50 as converted to PyTorch by SimCLRv2-Pytorch (Separius).

    The file holds "resnet" and "head"; "resnet" is renamed to torchvision's names, its classifier ``fc`` and
    the contrastive "head" are left out. Without selective kernels (sk0) the network is torchvision's ResNet-50.

    Raises
    ------
    BankError
        If `short` is not r50_1x_sk0, or the file is damaged or of another network.
    """
    _only(name, short, "r50_1x_sk0")
    state, sha256 = read_weights(weights.path, "resnet")
    renamed = rename_simclrv2({key: value for key, value in state.items() if not key.startswith("fc.")})
    return _resnet50(
        name, renamed, sha256, weights, licence="Apache-2.0", data="ImageNet-1k, self-supervised (SimCLRv2)"
    )


def rename_simclrv2(state: State) -> State:
    """Return the tensors of a converted r50_1x_sk0 under torchvision's names; unknown names stay."""
    names = {"net.0.0": "conv1", "net.0.1.0": "bn1"}
    for stage, blocks in enumerate(_BLOCKS, start=1):
        for block in range(blocks):
            for old, new in _BLOCK_PARTS.items():
                names[f"net.{stage}.blocks.{block}.{old}"] = f"layer{stage}.{block}.{new}"
    renamed = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        renamed[f"{names[stem]}.{leaf}" if stem in names else key] = value
    return renamed


def timm(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load any network of the timm package from a state dict; features are timm's pooled ones.

    Raises
    ------
    BankError
        If timm is not installed, has no such network, or the file does not fit it.
    """
    package = _package("timm", "timm")
    if not package.is_model(short):
        raise BankError(f"timm has no network {short!r}")
    module: Any = package.create_model(short, pretrained=False)
    whole = set(module.state_dict())
    module.reset_classifier(0)
    state, sha256 = read_weights(weights.path)
    classifier = whole - set(module.state_dict())
    kept = {key: value for key, value in state.items() if key not in classifier}
    return from_state(name, module, kept, sha256, weights)


def torchxrayvision(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load torchxrayvision's DenseNet-121 from a state dict, resaved from the package's own pickled files.

    It takes one channel in -1024..1024: 1024 times what the normalisation "half" gives; banks must use that.

    Raises
    ------
    BankError
        If the package is not installed, or the file is not a state dict of this network.
    """
    _only(name, short, "densenet121")
    package = _package("torchxrayvision.models", "xrv")
    state, sha256 = read_weights(weights.path)
    module: nn.Module = package.DenseNet(weights=None)
    kept = {key: value for key, value in state.items() if key.split(".")[0] == "features"}
    module.classifier = nn.Identity()
    return from_state(
        name, module, kept, sha256, weights, licence="Apache-2.0", forward=_xrv_features, normalisation="half"
    )


def rad_dino(name: str, short: str, weights: Weights) -> TorchBackbone:
    """Load RAD-DINO, a DINOv2 vision transformer of chest X-rays, from ``model.safetensors``; the CLS token.

    Sizes are read off the tensors; heads are 64 wide, as in every published DINOv2.

    Raises
    ------
    BankError
        If transformers is not installed, or the file is not of a Dinov2Model.
    """
    _only(name, short, "vit")
    package = _package("transformers", "rad-dino")
    state, sha256 = read_weights(weights.path)
    try:
        width = state["embeddings.cls_token"].shape[-1]
        places = state["embeddings.position_embeddings"].shape[1] - 1
        patch = state["embeddings.patch_embeddings.projection.weight"].shape[-1]
    except KeyError as error:
        raise BankError(f"{weights.path.name} does not fit {name}: it has no {error}") from error
    layers = 1 + max((int(key.split(".")[2]) for key in state if key.startswith("encoder.layer.")), default=-1)
    config = package.Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // 64), patch_size=patch,
        image_size=patch * round(places**0.5),
    )  # fmt: skip
    module: nn.Module
    module, seen = package.Dinov2Model.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    wrong = sorted(map(str, [*seen["missing_keys"], *seen["unexpected_keys"], *seen["mismatched_keys"]]))
    if wrong:
        raise BankError(f"{weights.path.name} does not fit {name}: {', '.join(wrong[:5])} missing or unknown")
    data = "public chest X-rays of three countries, self-supervised (RAD-DINO)"
    return TorchBackbone(
        name,
        module.float(),
        sha256,
        licence=weights.licence or "MIT",
        training_data=weights.training_data or data,
        forward=_class_token,
    )


LOADERS: dict[str, Loader] = {
    "torchvision": torchvision,
    "simclrv2": simclrv2,
    "barlow-twins": barlow_twins,
    "timm": timm,
    "xrv": torchxrayvision,
    "rad-dino": rad_dino,
}
"""By what stands before the colon of a backbone's name."""


def _resnet50(
    name: str, state: State, sha256: str, weights: Weights, *, licence: str, data: str
) -> TorchBackbone:
    module: nn.Module = import_models().get_model("resnet50", weights=None)
    module.fc = nn.Identity()
    return from_state(name, module, state, sha256, weights, licence=licence, training_data=data)


def _xrv_features(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    maps: torch.Tensor = module.features(batch[:, :1] * 1024.0)  # type: ignore[operator]
    return torch.relu(maps).mean((2, 3))


def _class_token(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    token: torch.Tensor = module(batch).pooler_output
    return token


def _only(name: str, short: str, known: str) -> None:
    if short != known:
        raise BankError(f"backbone {name!r} is unknown; {name.partition(':')[0]}:{known} is the one there is")


def _package(name: str, extra: str) -> Any:
    import_models()  # these packages import torchvision, which may need its schemas declared first
    try:
        module: ModuleType = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BankError(
            f"{name.split('.')[0]} is not installed ({error.name} is missing); "
            f"it comes with the extra {extra!r}: pip install 'dicom-node[{extra}]'"
        ) from error
    return module
