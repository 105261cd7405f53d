from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import load_backbone
from dicom_node.score.backbone_extras import rename_simclrv2
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.scoring import embed_views
from dicom_node.score.torchvision_ops import import_models
from dicom_node.score.weights import Weights

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A bottleneck with the names that the SimCLRv2 converter gives its parts."""

    def __init__(self, width_in: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width_in, width, 1, bias=False), self.norm(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), self.norm(width),
            nn.Conv2d(width, 4 * width, 1, bias=False), self.norm(4 * width, relu=False),
        )  # fmt: skip
        self.projection = nn.Module()
        if first:
            self.projection.shortcut = nn.Conv2d(width_in, 4 * width, 1, stride, bias=False)
            self.projection.bn = self.norm(4 * width, relu=False)

    @staticmethod
    def norm(width: int, relu: bool = True) -> nn.Sequential:
        norm = nn.BatchNorm2d(width)
        nn.init.uniform_(norm.weight, 0.2, 0.6)
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        return nn.Sequential(norm, nn.ReLU() if relu else nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = self.projection.bn(self.projection.shortcut(x)) if hasattr(self.projection, "bn") else x
        return torch.relu(short + self.net(x))


class Stage(nn.Module):
    def __init__(self, count: int, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [Block(width_in, width, stride, True)]
            + [Block(4 * width, width, 1, False) for _ in range(count - 1)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Converted(nn.Module):
    """The whole network of a converted r50_1x_sk0, written down independently of torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), Block.norm(64), nn.MaxPool2d(3, 2, 1))
        self.net = nn.Sequential(
            stem, Stage(3, 64, 64, 1), Stage(4, 256, 128, 2), Stage(6, 512, 256, 2), Stage(3, 1024, 512, 2)
        )
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).mean((2, 3))


def test_a_converted_simclrv2_checkpoint_gives_the_features_of_its_own_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Converted().eval()
    path = tmp_path / "r50_1x_sk0.pth"
    torch.save({"resnet": network.state_dict(), "head": {"layers.0.weight": torch.zeros(2, 2)}}, path)
    backbone = load_backbone("simclrv2:r50_1x_sk0", path)
    assert (backbone.dim, backbone.licence) == (2048, "Apache-2.0")
    assert "SimCLRv2" in backbone.training_data
    with torch.inference_mode():
        expected = network(X).numpy()
    assert np.abs(backbone.embed(X) - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_name_of_a_converted_checkpoint_is_renamed_to_one_of_torchvision() -> None:
    torch.manual_seed(0)
    state = {key: value for key, value in Converted().state_dict().items() if not key.startswith("fc.")}
    wanted = import_models().get_model("resnet50", weights=None).state_dict()
    assert set(rename_simclrv2(state)) == {key for key in wanted if not key.startswith("fc.")}


def test_a_simclrv2_file_without_its_part_or_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"head": {}}, path)
    with pytest.raises(BankError, match="no part 'resnet'"):
        load_backbone("simclrv2:r50_1x_sk0", path)
    torch.save({"resnet": {"net.0.0.weight": torch.zeros(1)}}, path)
    with pytest.raises(BankError, match="does not fit simclrv2:r50_1x_sk0"):
        load_backbone("simclrv2:r50_1x_sk0", path)
    with pytest.raises(BankError, match="simclrv2:r50_1x_sk0 is the one there is"):
        load_backbone("simclrv2:r152_3x_sk1", path)


def test_barlow_twins_is_a_resnet50_without_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = import_models().get_model("resnet50", weights=None).eval()
    path = tmp_path / "resnet50.pth"
    torch.save({k: v for k, v in module.state_dict().items() if not k.startswith("fc.")}, path)
    backbone = load_backbone("barlow-twins:resnet50", path)
    assert (backbone.dim, backbone.licence) == (2048, "CC-BY-NC-4.0")
    with torch.inference_mode():
        assert torch.allclose(module.fc(torch.from_numpy(backbone.embed(X))), module(X), rtol=1e-3, atol=1e-4)
    torch.save(module.state_dict(), path)
    with pytest.raises(BankError, match="does not fit barlow-twins:resnet50"):
        load_backbone("barlow-twins:resnet50", path)


def test_who_gives_the_file_may_say_where_it_comes_from(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = tmp_path / "resnet18.pth"
    torch.save(import_models().get_model("resnet18", weights=None).state_dict(), path)
    said = load_backbone("torchvision:resnet18", Weights(path, "BSD-3-Clause", "ImageNet-1k"))
    assert (said.licence, said.training_data) == ("BSD-3-Clause", "ImageNet-1k")
    assert load_backbone("torchvision:resnet18", path).licence == "as of the weights file"


def test_a_timm_network_gives_its_pooled_features_with_and_without_its_classifier(tmp_path: Path) -> None:
    import_models()
    timm = pytest.importorskip("timm")
    module = timm.create_model("resnet18", pretrained=False).eval()
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path)
    backbone = load_backbone("timm:resnet18", path)
    with torch.inference_mode():
        assert torch.allclose(module.fc(torch.from_numpy(backbone.embed(X))), module(X), atol=1e-4)
    torch.save({k: v for k, v in module.state_dict().items() if not k.startswith("fc.")}, path)
    assert np.array_equal(load_backbone("timm:resnet18", path).embed(X), backbone.embed(X))
    with pytest.raises(BankError, match="timm has no network 'resnet19'"):
        load_backbone("timm:resnet19", path)


def test_torchxrayvision_gets_one_channel_in_its_own_range(tmp_path: Path) -> None:
    import_models()
    xrv = pytest.importorskip("torchxrayvision")
    torch.manual_seed(2)
    module = xrv.models.DenseNet(weights=None).eval()
    path = tmp_path / "densenet.pt"
    torch.save(module.state_dict(), path)
    backbone = load_backbone("xrv:densenet121", path)
    grey = np.random.default_rng(0).random((1, 1, 64, 64), dtype=np.float32)
    mean, std = NORMALISATIONS["half"]
    ours = embed_views(backbone, grey, Preprocessing(mean=mean, std=std))[0, 0]
    with torch.inference_mode():
        theirs = module.features2(torch.from_numpy(grey) * 2048 - 1024)[0].numpy()
    assert ours.shape == (1024,)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()
    with pytest.raises(BankError, match="takes images in the normalisation half"):
        embed_views(backbone, grey, Preprocessing())


def test_rad_dino_gives_the_class_token_of_a_saved_dinov2(tmp_path: Path) -> None:
    import_models()
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=112, patch_size=14
    )
    module = transformers.Dinov2Model(config).eval()
    module.save_pretrained(tmp_path)
    backbone = load_backbone("rad-dino:vit", tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(images).last_hidden_state[:, 0].numpy()
    assert backbone.dim == 128
    assert np.abs(backbone.embed(images) - expected).max() < 1e-4
    torch.save(
        {k: v for k, v in module.state_dict().items() if "encoder.layer.1." not in k}, tmp_path / "less.pth"
    )
    with pytest.raises(BankError, match="missing or unknown"):
        load_backbone("rad-dino:vit", tmp_path / "less.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BankError, match=r"has no 'embeddings\.cls_token'"):
        load_backbone("rad-dino:vit", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("backbone", "package", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("xrv:densenet121", "torchxrayvision.models", "xrv"),
        ("rad-dino:vit", "transformers", "rad-dino"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    backbone: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, package.split(".")[0], None)
    with pytest.raises(BankError, match=rf"pip install 'dicom-node\[{extra}\]'"):
        load_backbone(backbone, tmp_path / "any.pth")
