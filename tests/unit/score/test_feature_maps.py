from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from dicom_node.score.backbone import load_backbone
from dicom_node.score.feature_maps import feature_map, measure_shift, stage_of
from dicom_node.score.torchvision_ops import import_models
from tests.unit.score.builders import small_backbone
from tests.unit.score.patch_builders import mapped_backbone

BATCH = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_lite0_gives_its_two_stages_of_a_sixteenth_of_the_side() -> None:
    backbone = load_backbone("lite0-random")
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        backbone.module.get_submodule(f"_blocks.{number}").register_forward_hook(
            lambda _, __, out, number=number: seen.__setitem__(number, out)
        )
        for number in (7, 10)
    ]
    backbone.embed(BATCH)  # the network's own forward pass
    for hook in hooks:
        hook.remove()
    expected = torch.cat([normalize(seen[7], dim=1), normalize(seen[10], dim=1)], dim=1)
    found = backbone.embed_map(BATCH)
    assert backbone.map_stage == "blocks.7+blocks.10"
    assert found.shape == (2, 80 + 112, 4, 4)
    assert found.dtype == np.float32
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_a_resnet_gives_layer2_and_layer3() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = import_models().resnet18(weights=None).eval()
    assert stage_of(module) == "layer2+layer3"
    with torch.inference_mode():
        found = feature_map(module, BATCH)
    assert found.shape == (2, 128 + 256, 4, 4)
    assert torch.allclose(found[:, :128].norm(dim=1), torch.ones(2, 4, 4), atol=1e-5)
    assert torch.allclose(found[:, 128:].norm(dim=1), torch.ones(2, 4, 4), atol=1e-5)


def test_a_network_without_such_stages_gives_no_map() -> None:
    assert small_backbone().map_stage == ""


def test_the_shift_of_a_map_is_what_its_padding_makes_it() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        resnet = import_models().resnet18(weights=None).eval()
    # Its cells look at pixels 0, 16, 32, ...: half a pixel into the image, where the first cell's middle is at 8.
    assert measure_shift(resnet, 224) == pytest.approx([-7.5 / 224, -7.5 / 224], abs=3 / 224)
    assert measure_shift(mapped_backbone().module, 64) == pytest.approx([-7.5 / 64, -7.5 / 64], abs=2 / 64)


def test_a_map_does_not_depend_on_what_shares_its_batch() -> None:
    backbone = mapped_backbone()
    together, alone = backbone.embed_map(BATCH), backbone.embed_map(BATCH[1:])
    assert np.allclose(together[1], alone[0], atol=1e-6)
