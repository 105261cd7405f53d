"""torchvision's own weights: from torch's cache or by a download, and what is said when neither will do."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import load_backbone
from dicom_node.score.torchvision_ops import import_models
from dicom_node.score.torchvision_weights import LICENCE, fetch, of_entry


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def put(folder: Path, content: bytes, name: str = "") -> Path:
    """Write a file under the name that torch gives weights, or under another."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / (name or f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    path.write_bytes(content)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Return the address of a server of the files in ``site``."""
    (tmp_path / "site").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_file_is_downloaded_once_and_then_needs_no_network(
    tmp_path: Path, site: str, capfd: pytest.CaptureFixture[str]
) -> None:
    there = put(tmp_path / "site", b"numbers")
    path = fetch(f"{site}/{there.name}", tmp_path / "cache" / "checkpoints")
    assert path.read_bytes() == b"numbers"
    assert fetch(f"http://127.0.0.1:{closed_port()}/{there.name}", path.parent) == path
    assert capfd.readouterr().out == ""
    assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_a_damaged_download_is_refused_and_leaves_nothing(tmp_path: Path, site: str) -> None:
    put(tmp_path / "site", b"other numbers", "weights-00000000.pth")
    with pytest.raises(BankError, match=r"download of weights-00000000.pth is damaged.*--weights FILE"):
        fetch(f"{site}/weights-00000000.pth", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_the_remedy_is_named(tmp_path: Path, site: str) -> None:
    away = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(
        BankError, match=r"weights-12345678.pth.*could not be downloaded.*--weights FILE"
    ) as told:
        fetch(f"{away}/weights-12345678.pth", tmp_path)
    assert away not in str(told.value)
    with pytest.raises(BankError, match=r"could not be downloaded \(File not found\)"):
        fetch(f"{site}/weights-12345678.pth", tmp_path)


def test_a_damaged_file_in_the_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = Path(import_models().get_model_weights("resnet18").DEFAULT.url).name
    put(tmp_path / "hub" / "checkpoints", b"half a file", name)
    with pytest.raises(BankError, match=f"{name} has SHA-256 [0-9a-f]{{64}}; by its name it begins with"):
        load_backbone("torchvision:resnet18")


def test_weights_from_the_cache_make_a_backbone_that_says_where_they_are_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(import_models().get_model("resnet18", weights=None).state_dict(), tmp_path / "plain.pth")
    path = put(tmp_path / "cache", (tmp_path / "plain.pth").read_bytes())

    class Entry(SimpleNamespace):
        def __str__(self) -> str:
            return "ResNet18_Weights.IMAGENET1K_V1"

    entry = Entry(url=f"http://127.0.0.1:{closed_port()}/{path.name}", meta={})
    backbone = load_backbone("torchvision:resnet18", of_entry(entry, path.parent))
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.licence == LICENCE
    assert backbone.training_data == "ImageNet-1k (ResNet18_Weights.IMAGENET1K_V1)"
    entry.meta["license"] = "CC-BY-NC-4.0"
    assert of_entry(entry, path.parent).licence == "CC-BY-NC-4.0"
