from __future__ import annotations

import pytest
import torch
from torch import nn

from dicom_node.score.salad_network import SaladEncoder, SaladNetwork, levels


def shapes(module: nn.Module, kind: type[nn.Module]) -> list[tuple[int, ...]]:
    return [tuple(part.weight.shape) for part in module.modules() if isinstance(part, kind)]  # type: ignore[arg-type]


def test_at_the_papers_size_the_encoder_halves_six_times_from_16_to_1024_channels_at_4_by_4() -> None:
    encoder = SaladEncoder()
    double = shapes(encoder.down, nn.Conv2d)
    assert double[:2] == [(16, 3, 3, 3), (16, 16, 3, 3)]
    assert [out for out, *_ in double[1::2]] == [16, 32, 64, 128, 256, 512, 1024]
    assert sum(isinstance(part, nn.MaxPool2d) for part in encoder.modules()) == 6
    assert encoder.embed.weight.shape == (200, 1024, 4, 4)
    with torch.inference_mode():
        assert encoder.eval().down(torch.zeros(1, 3, 256, 256)).shape == (1, 1024, 4, 4)


def test_at_the_papers_size_the_decoder_mirrors_it_and_ends_in_three_channels() -> None:
    decoder = SaladNetwork().decoder
    assert decoder.spread.weight.shape == (200, 1024, 4, 4)
    halving = [shape[:2] for shape in shapes(decoder.up, nn.Conv2d) if shape[2:] == (1, 1)]
    assert halving == [(512, 1024), (256, 512), (128, 256), (64, 128), (32, 64), (16, 32), (3, 16)]
    assert sum(isinstance(part, nn.Upsample) for part in decoder.modules()) == 6
    with torch.inference_mode():
        assert decoder.eval()(torch.ones(1, 200)).shape == (1, 3, 256, 256)


def test_double_convolutions_have_no_bias_and_a_slope_of_a_tenth() -> None:
    encoder = SaladEncoder(32, 4)
    assert all(part.bias is None for part in encoder.down.modules() if isinstance(part, nn.Conv2d))
    slopes = {part.negative_slope for part in encoder.modules() if isinstance(part, nn.LeakyReLU)}
    assert slopes == {0.1}
    count = [sum(isinstance(p, kind) for p in encoder.modules()) for kind in (nn.Conv2d, nn.BatchNorm2d)]
    assert count == [2 * 4 + 1, 2 * 4]


def test_embeddings_have_unit_length_and_reconstructions_the_images_shape_between_minus_1_and_1() -> None:
    network = SaladNetwork(32, 4, 12)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    z, seen = network(images)
    assert z.shape == (5, 12)
    assert torch.allclose(z.norm(dim=1), torch.ones(5))
    assert seen.shape == images.shape
    assert seen.abs().max() < 1


@pytest.mark.parametrize(("size", "count"), [(8, 1), (32, 3), (64, 4), (256, 6)])
def test_any_power_of_two_from_8_is_a_size(size: int, count: int) -> None:
    assert levels(size) == count


@pytest.mark.parametrize("size", [0, 4, 100, 224, -256])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="4 times a power of two"):
        levels(size)
