"""What dead builds left beside the banks, and that nothing of a running one is touched."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.score.bank import MANIFEST, WEIGHTS, read_manifest
from dicom_node.score.bank_leftovers import RESUMABLE, building, clear, leftovers
from tests.integration.test_bank_life import random_bank

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG_AGO = (NOW - RESUMABLE - timedelta(hours=1)).timestamp()


def work(root: Path, name: str, touched: float = LONG_AGO) -> Path:
    folder = root / f".{name}.work"
    folder.mkdir(parents=True)
    for file in ("lock", "shard.safetensors"):
        (folder / file).touch()
        os.utime(folder / file, (touched, touched))
    return folder


def found(root: Path) -> dict[str, bool]:
    return {str(left.path.relative_to(root)): left.goes for left in leftovers(root, NOW)}


def test_only_the_work_of_a_build_that_is_long_dead_goes(tmp_path: Path) -> None:
    old, fresh, running = work(tmp_path, "old"), work(tmp_path, "fresh", NOW.timestamp()), work(tmp_path, "run")
    assert not building(tmp_path)
    with (running / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(running / "lock", (LONG_AGO, LONG_AGO))
        assert building(tmp_path)
        assert found(tmp_path) == {".fresh.work": False, ".old.work": True, ".run.work": False}
    assert found(tmp_path)[".run.work"]
    assert all(clear(left) for left in leftovers(tmp_path, NOW) if left.goes)
    assert [path for path in (old, fresh, running) if path.exists()] == [fresh]


def test_a_build_that_took_its_work_up_again_keeps_it(tmp_path: Path) -> None:
    folder = work(tmp_path, "old")
    (left,) = leftovers(tmp_path, NOW)
    with (folder / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not clear(left)
    assert folder.exists()


def test_what_a_process_was_at_goes_once_it_is_gone(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above the largest process id there is
    for name in (f".chest.writing-{gone}", f".chest.removed-{gone}", f".chest.writing-{os.getpid()}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".active.json.writing-{gone}").touch()
    assert found(tmp_path) == {
        f".active.json.writing-{gone}": True,
        f".chest.removed-{gone}": True,
        f".chest.writing-{gone}": True,
        f".chest.writing-{os.getpid()}": False,
    }
    assert all(clear(left) for left in leftovers(tmp_path, NOW) if left.goes)
    assert [path.name for path in tmp_path.iterdir()] == [f".chest.writing-{os.getpid()}"]


@pytest.mark.parametrize("hindrance", ["", "running", "unreadable"])
def test_weights_of_no_bank_go_unless_some_bank_may_need_them(tmp_path: Path, hindrance: str) -> None:
    random_bank(tmp_path, "one", 0)
    (tmp_path / WEIGHTS).mkdir()
    needed, orphan = read_manifest(tmp_path / "one").backbone.weights_sha256, "b" * 64
    for name in (needed, orphan, f"{orphan}.writing"):
        (tmp_path / WEIGHTS / name).touch()
    lock = (work(tmp_path, "run") / "lock").open("r+")
    if hindrance == "running":
        fcntl.flock(lock, fcntl.LOCK_EX)
    if hindrance == "unreadable":
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / MANIFEST).write_text("{}")
    seen = {name: goes for name, goes in found(tmp_path).items() if name.startswith(WEIGHTS)}
    lock.close()
    assert seen == dict.fromkeys((f"{WEIGHTS}/{orphan}", f"{WEIGHTS}/{orphan}.writing"), not hindrance)
