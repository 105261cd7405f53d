"""A small real network with the stages of a ResNet, and patches made from it."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from dicom_node.score.backbone import TorchBackbone
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import PatchBank
from dicom_node.score.pixels import Grey
from training.patches import learn_patches

SMALL = Preprocessing(size=64, resize_short=80)


def mapped_backbone(seed: int = 0) -> TorchBackbone:
    """Return a network whose map is (12, S / 16, S / 16); no bias, so a flat image gives flat features."""

    def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode="replicate"), nn.LeakyReLU(0.3)
        )

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 4, 3, 2, 1, padding_mode="replicate"),
                bn1=nn.BatchNorm2d(4),
                relu=nn.ReLU(),
                maxpool=nn.AvgPool2d(2),
                layer1=layer(4, 4, 1),
                layer2=layer(4, 6, 2),
                layer3=layer(6, 6, 2),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
    return TorchBackbone("mapped", module, f"{seed:064x}", licence="none", training_data="none", side=64)


def tiled_backbone() -> TorchBackbone:
    """Return a network whose cells each see their own 16 x 16 pixels and nothing else."""

    def layer(inputs: int, outputs: int, side: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, side, side), nn.LeakyReLU(0.3))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 8, 4, 4),
                bn1=nn.BatchNorm2d(8),
                relu=nn.LeakyReLU(0.3),
                maxpool=nn.Identity(),
                layer1=nn.Identity(),
                layer2=layer(8, 8, 2),
                layer3=layer(8, 8, 2),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
    return TorchBackbone("tiled", module, "2" * 64, licence="none", training_data="none", side=64)


def texture(seed: int, height: int = 128, width: int = 96) -> Grey:
    """Return a grey ramp from top to bottom with a little noise: every place looks like its neighbours."""
    noise = np.random.default_rng(seed).normal(0.0, 0.01, (height, width))
    return np.clip(np.linspace(0.3, 0.6, height)[:, None] + noise, 0.0, 1.0).astype(np.float32)


def patches(backbone: TorchBackbone, preprocessing: Preprocessing = SMALL, **options: object) -> PatchBank:
    """Return the patches of twelve textures, calibrated with ten others."""
    settings: dict[str, object] = {"count": 100} | options
    return learn_patches(
        lambda: (texture(seed) for seed in range(12)),
        lambda: (texture(seed) for seed in range(100, 110)),
        backbone,
        preprocessing,
        **settings,  # type: ignore[arg-type]
    )
