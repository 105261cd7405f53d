"""The map of a network's middle stages: features with a place. Which networks give one, and under what name.

Knows nothing of images or banks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from dicom_node.domain.errors import BankError

_LITE_BLOCKS = (7, 10)
"""The two blocks of EfficientNet-Lite0 that end its 14 x 14 stages (80 and 112 channels)."""

_PROBES = 8
"""Images with which the shift of a map is measured."""

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
    first, second = lite_blocks(module, batch, _LITE_BLOCKS) if _is_lite(module) else _resnet(module, batch)
    first = adaptive_avg_pool2d(first, (second.shape[2], second.shape[3]))
    return torch.cat([normalize(first.float(), dim=1), normalize(second.float(), dim=1)], dim=1)


def measure_shift(module: nn.Module, size: int) -> tuple[float, float]:
    """Return how far a map's cells look from where they lie: down and across, as shares of the image's side.

    Padding before strided layers moves what a cell looks at (by half a cell up and left in a ResNet). Measured as
    the centre of mass of the squared gradient of the middle cell's features with respect to images of smooth
    noise; rounded to thousandths, so that it does not depend on the machine.

    Parameters
    ----------
    size
        Side S of the images.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(_PROBES, 1, size // 8, size // 8, generator=generator)
    images = interpolate(coarse, size=(size, size), mode="bilinear").repeat(1, 3, 1, 1)
    images = images.to(next(module.parameters()).device).requires_grad_()
    with torch.inference_mode(mode=False), torch.enable_grad():
        found = feature_map(module, images)
        middle = found.shape[2] // 2
        # Features have unit length; the sum of their products with fixed weights has a gradient all the same.
        weights = torch.randn(found.shape[1], generator=generator).to(found.device)
        (gradient,) = torch.autograd.grad((found[:, :, middle, middle] * weights).sum(), images)
    mass = gradient.square().sum((0, 1)).double().cpu()
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    lies = (middle + 0.5) / found.shape[2]
    down, across = (float((mass.sum(along) * centres).sum() / mass.sum()) - lies for along in (1, 0))
    return round(down, 3), round(across, 3)


def _is_lite(module: nn.Module) -> bool:
    blocks = getattr(module, "_blocks", None)
    return hasattr(module, "_conv_stem") and blocks is not None and len(blocks) > _LITE_BLOCKS[1]


def lite_blocks(module: nn.Module, batch: torch.Tensor, numbers: Sequence[int]) -> list[torch.Tensor]:
    """Return what these blocks of EfficientNet-Lite0 give, (N, C, h, w) each; `numbers` ascending, from 0.

    Raises
    ------
    BankError
        If the network is none or has fewer blocks.
    """
    blocks = list(module.get_submodule("_blocks").children()) if _is_lite(module) else []
    if numbers[-1] >= len(blocks):
        raise BankError(f"blocks {list(numbers)} are asked of a network that is no EfficientNet-Lite with them")
    stem, norm, activation = (getattr(module, part) for part in ("_conv_stem", "_bn0", "_swish"))
    out, found = activation(norm(stem(batch))), []
    for number, block in enumerate(blocks):
        out = block(out)
        if number in numbers:
            found.append(out)
        if number == numbers[-1]:
            break
    return found


def _resnet(module: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, first = batch, batch
    for part in _RESNET_PARTS:
        out = module.get_submodule(part)(out)
        if part == "layer2":
            first = out
    return first, out
