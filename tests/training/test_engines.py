"""Where embedding runs changes nothing in the vectors: on threads here, or on a Ray cluster of two workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import INDEX, load_bank
from dicom_node.score.manifest import NORMALISATIONS
from tests.training.test_build import SMALL, built, order, pictures
from training import embed
from training.dataset import Item, Reader
from training.embed import SHARD, embed_entries
from training.engines import ENGINES, engine
from training.engines.shard import embed_shard
from training.manifest import read_entries

KEY = b"k" * 32
FILES = 3 * SHARD + 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    ray = pytest.importorskip("ray", reason="the package ray (extra dicom-node[ray]) is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def reader(views: tuple[str, ...] = ("squash", "tl", "squash-flip")) -> Reader:
    return Reader(SMALL, views, Eligibility(), KEY)


def test_threads_of_one_process_give_the_bytes_of_one_thread(tmp_path: Path) -> None:
    entries = read_entries(pictures(tmp_path / "in", FILES), KEY)
    entries[3].path.write_bytes(b"no picture")
    backbone = load_backbone("lite0-random")
    found = embed_entries(entries, reader(), backbone, tmp_path, lambda _: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shards = [entries[at : at + SHARD] for at in range(0, FILES, SHARD)]
    alone = [embed_shard(shard, reader(), backbone) for shard in shards]
    torch.set_num_threads(threads)
    assert found.features.tobytes() == np.concatenate([part for _, part in alone]).tobytes()
    assert found.items == [item for items, _ in alone for item in items if not item.skipped]
    assert [name for name, _ in found.skipped] == ["p0003.png"]
    assert found.paths == [entry.path for entry in entries if entry.path.name != "p0003.png"]


def test_the_number_of_threads_is_given_back(tmp_path: Path) -> None:
    entries = read_entries(pictures(tmp_path / "in", 3), KEY)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    embed_entries(entries, reader(), load_backbone("lite0-random"), tmp_path, lambda _: None)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == 3


def test_a_ray_cluster_gives_the_same_bank_byte_for_byte(cluster: object, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", FILES)
    (folder / "broken.png").write_bytes(b"no picture")
    here, there = (
        built(order(folder, tmp_path / where, backbone="lite0", engine=where, patches=0)) for where in ENGINES
    )
    assert here.bank_hash == there.bank_hash
    assert here.skipped == there.skipped
    one, two = (tmp_path / where / "normals" / INDEX for where in ENGINES)
    assert one.read_bytes() == two.read_bytes()
    assert load_bank(two.parent).images == load_bank(one.parent).images


def test_shards_finished_on_one_engine_are_reused_by_the_other(cluster: object, tmp_path: Path) -> None:
    entries = read_entries(pictures(tmp_path / "in", FILES), KEY)
    backbone = load_backbone("lite0-random")
    first = embed_entries(entries, reader(), backbone, tmp_path, lambda _: None, "ray")
    progress: list[int] = []
    second = embed_entries(entries, reader(), backbone, tmp_path, progress.append, "local")
    assert (first.reused, second.reused, sum(progress)) == (0, FILES, FILES)
    assert first.features.tobytes() == second.features.tobytes()


def test_an_error_of_a_worker_says_what_it_says_here(cluster: object, tmp_path: Path) -> None:
    entries = read_entries(pictures(tmp_path / "in", 3), KEY)
    backbone = load_backbone("lite0-random")
    backbone.normalisation = next(name for name in NORMALISATIONS if name != "imagenet")
    for where in ENGINES:
        with pytest.raises(BankError, match=r"^lite0-random takes images in the normalisation half"):
            embed_entries(entries, reader(), backbone, tmp_path / "x", lambda _: None, where)


def test_without_ray_it_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BankError, match=r"install dicom-node\[ray\]"):
        next(engine("ray")([[]], reader(), load_backbone("lite0-random")))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="there are"):
        engine("moon")


def test_features_lie_in_a_file_and_leave_nothing_behind(tmp_path: Path) -> None:
    entries = read_entries(pictures(tmp_path / "in", 3), KEY)
    work = tmp_path / "work"
    work.mkdir()
    found = embed_entries(entries, reader(), load_backbone("lite0-random"), work, lambda _: None)
    base = found.features
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not found.features.flags.writeable
    assert [path.suffix for path in work.iterdir()] == [".safetensors"]


def test_a_shard_that_vanishes_during_the_build_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = read_entries(pictures(tmp_path / "in", 3), KEY)
    save = embed._save_shard

    def and_lose(path: Path, items: list[Item], features: np.ndarray) -> None:
        save(path, items, features)
        path.unlink()

    monkeypatch.setattr(embed, "_save_shard", and_lose)
    with pytest.raises(BankError, match="was changed during the build; start it again"):
        embed_entries(entries, reader(), load_backbone("lite0-random"), tmp_path, lambda _: None)
