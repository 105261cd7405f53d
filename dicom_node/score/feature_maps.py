"""The map of a network's middle stages: features with a place. Which networks give one, and under what name.

Knows nothing of images or banks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

_LITE_BLOCKS = (7, 10)
"""The two blocks of EfficientNet-Lite0 that end its 14 x 14 stages (80 and 112 channels)."""

_RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")


def stage_of(module: nn.Module) -> str:
    """Return the name of the stages that `feature_map` joins, or "" where the network gives no map."""
    if _is_lite(module):
        return "+".join(f"blocks.{number}" for number in _LITE_BLOCKS)
    return "layer2+layer3" if all(hasattr(module, part) for part in _RESNET_PARTS) else ""


def feature_map(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Return the map (N, D, h, w) float32 of normalised images (N, 3, S, S): h = w = S / 16.

    Two stages are joined, each of unit length along its channels, so that neither outweighs the other (for
    ResNets as in PatchCore, Roth et al., CVPR 2022, section 3.1, without its smoothing over neighbours: that
    lost small lesions in our measurement).
    """
    first, second = _lite(module, batch) if _is_lite(module) else _resnet(module, batch)
    first = adaptive_avg_pool2d(first, (second.shape[2], second.shape[3]))
    return torch.cat([normalize(first.float(), dim=1), normalize(second.float(), dim=1)], dim=1)


def _is_lite(module: nn.Module) -> bool:
    blocks = getattr(module, "_blocks", None)
    return hasattr(module, "_conv_stem") and blocks is not None and len(blocks) > _LITE_BLOCKS[1]


def _lite(module: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    stem, norm, activation = (getattr(module, part) for part in ("_conv_stem", "_bn0", "_swish"))
    blocks = module.get_submodule("_blocks")
    out, first = activation(norm(stem(batch))), batch
    for number, block in enumerate(blocks.children()):
        out = block(out)
        if number == _LITE_BLOCKS[0]:
            first = out
        if number == _LITE_BLOCKS[1]:
            break
    return first, out


def _resnet(module: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, first = batch, batch
    for part in _RESNET_PARTS:
        out = module.get_submodule(part)(out)
        if part == "layer2":
            first = out
    return first, out
