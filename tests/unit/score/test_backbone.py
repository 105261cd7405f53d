from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import LITE0_SHA256, load_backbone
from dicom_node.score.torchvision_ops import import_models

X = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_lite0_is_the_published_network_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    backbone = load_backbone("lite0")
    assert (backbone.name, backbone.dim, backbone.weights_sha256) == ("lite0", 1280, LITE0_SHA256)
    assert (backbone.licence, backbone.training_data) == ("Apache-2.0", "ImageNet-1k")
    features = backbone.embed(X)
    assert features.shape == (2, 1280)
    assert features.dtype == np.float32
    assert np.array_equal(backbone.embed(X), features)
    assert np.abs(backbone.embed(X[:1]) - features[:1]).max() < 1e-4
    assert capfd.readouterr() == ("", "")


def test_random_lite0_is_the_same_every_time_and_is_not_lite0() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = load_backbone("lite0-random"), load_backbone("lite0-random")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.weights_sha256 == two.weights_sha256 != LITE0_SHA256
    assert np.array_equal(one.embed(X), two.embed(X))


def test_a_torchvision_network_loads_from_a_local_file_without_its_classifier(tmp_path: Path) -> None:
    models = import_models()
    torch.manual_seed(0)
    module = models.get_model("resnet18", weights=None).eval()
    path = tmp_path / "resnet18.pth"
    torch.save(module.state_dict(), path)
    backbone = load_backbone("torchvision:resnet18", path)
    assert backbone.dim == 512
    with torch.inference_mode():
        expected = module.fc(torch.from_numpy(backbone.embed(X)))
        assert torch.allclose(expected, module(X), atol=1e-4)


def test_weights_that_do_not_fit_or_hold_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(BankError, match="does not fit torchvision:resnet18"):
        load_backbone("torchvision:resnet18", path)
    torch.save({"conv1.weight": Path}, path)
    with pytest.raises(BankError, match="no plain state dict"):
        load_backbone("torchvision:resnet18", path)
    path.write_bytes(b"weights, honestly")
    with pytest.raises(BankError, match="no plain state dict"):
        load_backbone("torchvision:resnet18", path)
    with pytest.raises(BankError, match="cannot be read"):
        load_backbone("torchvision:resnet18", tmp_path / "away.pth")


@pytest.mark.parametrize("name", ["resnet50", "torchvision:nothing", "torchvision:", "timm:resnet18"])
def test_an_unknown_backbone_or_one_without_weights_is_refused(name: str) -> None:
    with pytest.raises(BankError):
        load_backbone(name)
