"""A power cut at any commit: every committed row finds its file whole among what had been synced by then.

The disk is modelled at its worst: of a file only those bytes survive that were synced, of a folder only those names
that it had when it was synced. In a second world every removal of a name has reached the disk nevertheless.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from dicom_node.config import Db, load
from dicom_node.db import schema
from dicom_node.db.engine import open_engine, reading
from dicom_node.domain.ids import SELFTEST_AE_TITLE
from dicom_node.pipeline.archive import verify
from dicom_node.pipeline.backup import back_up
from dicom_node.pipeline.retention import prune
from dicom_node.score.bank_store import BankStore
from dicom_node.store.files import FileStore
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset

REAL_FSYNC = os.fsync


class Disk:
    """Remembers what was synced; can say what is left after a power cut."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.alive: list[int] = []  # open, so that the number of a removed file is not used again

    def fsync(self, descriptor: int) -> None:
        REAL_FSYNC(descriptor)
        inode = os.fstat(descriptor).st_ino
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            if inode not in self.bytes:
                self.alive.append(os.dup(descriptor))
            self.bytes[inode] = path.read_bytes()

    def after_a_cut(self, *, removals_reached_it: bool) -> dict[str, bytes]:
        """Return the files that are left, by their path below the root; bytes never synced are none."""
        left: dict[str, bytes] = {}

        def walk(inode: int, below: str) -> None:
            for name, child in self.names.get(inode, {}).items():
                path = f"{below}{name}"
                now = self.root / path
                if removals_reached_it and not (now.exists() and now.lstat().st_ino == child):
                    continue
                if child in self.names:
                    walk(child, f"{path}/")
                else:
                    left[path] = self.bytes.get(child, b"")

        walk(self.root.stat().st_ino, "")
        return left

    def close(self) -> None:
        for descriptor in self.alive:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, disk: Disk, _sqlite_template: Path) -> Any:
    shutil.copyfile(_sqlite_template, tmp_path / "node.db")
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    site = Site(engine, tmp_path / "unused")
    files = FileStore(disk.root / "store", 0, fsync=disk.fsync)
    for part in (site, site.ingest, site.analyse, site.dispatch):
        setattr(part, "files" if part is site else "_files", files)
    yield site
    engine.dispose()


def dataset_digest(content: bytes) -> str:
    start = 144 + int.from_bytes(content[140:144], "little") if len(content) > 144 else 0
    return hashlib.sha256(content[start:]).hexdigest()


def rows_without_their_file(engine: Engine, disk: Disk) -> list[str]:
    """Return the rows, as committed, whose file a power cut now would leave missing or broken, in either world."""
    with reading(engine) as conn:
        images = conn.execute(
            select(schema.instances.c.digest).where(schema.instances.c.kept == "yes")
        ).scalars()
        reports = conn.execute(select(schema.reports.c.digest).where(schema.reports.c.kept == "yes")).scalars()
        wanted = [("instances", digest, dataset_digest) for digest in images]
        wanted += [("reports", digest, lambda c: hashlib.sha256(c).hexdigest()) for digest in reports]
    broken = []
    for world in (False, True):
        left = disk.after_a_cut(removals_reached_it=world)
        for area, digest, hashed in wanted:
            path = f"store/{area}/{digest[:2]}/{digest}.dcm"
            if path not in left or hashed(left[path]) != digest:
                broken.append(path)
    return broken


def at_every_commit(engine: Engine, look: Callable[[], None]) -> None:
    @event.listens_for(engine, "commit")
    def committing(conn: Any) -> None:
        if not conn.get_execution_options().get("read_only", False):
            conn.info["look"] = True

    @event.listens_for(engine, "checkin")
    def committed(_dbapi: Any, record: Any) -> None:
        if record.info.pop("look", False):
            look()


def test_after_a_power_cut_at_any_commit_every_row_has_its_file_whole(site: Site, disk: Disk) -> None:
    broken: list[list[str]] = []
    at_every_commit(site.engine, lambda: broken.append(rows_without_their_file(site.engine, disk)))
    first, second = chest_dataset(seed=1), chest_dataset(seed=2)
    for ds in (first, first, second):
        site.receive(ds)
    site.pass_quiet_time()
    site.work()
    assert len(broken) > 10
    assert [b for b in broken if b] == []
    site.receive(chest_dataset(seed=3), calling=SELFTEST_AE_TITLE)
    site.pass_quiet_time()
    site.work()
    site.clock.forward(86_400 * 3)
    from dicom_node.config import Store

    assert len(prune(site.engine, site.files, Store(retention_days=1), site.clock).studies) == 3
    site.receive(first)  # held again
    assert [b for b in broken if b] == []


def test_the_model_sees_a_store_that_forgets_a_sync(site: Site, disk: Disk) -> None:
    site.files._fsync = lambda _descriptor: None
    site.receive(chest_dataset())
    assert len(rows_without_their_file(site.engine, disk)) == 2


def test_after_a_power_cut_at_any_sync_the_active_banks_are_the_old_or_the_new(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = disk.root / "banks"
    root.mkdir()
    states: list[Any] = []

    def fsync(descriptor: int) -> None:
        disk.fsync(descriptor)
        for world in (False, True):
            content = disk.after_a_cut(removals_reached_it=world).get("banks/active.json")
            states.append(None if content is None else json.loads(content)["active"])

    monkeypatch.setattr(os, "fsync", fsync)
    handle = os.open(disk.root, os.O_RDONLY)
    disk.fsync(handle)
    os.close(handle)
    store = BankStore(root)
    for name in ("one", "two"):
        store._write({"active": [{"name": name, "bank_hash": "f0"}], "history": []})
    names = [None if state is None else state[0]["name"] for state in states]
    assert set(names) <= {None, "one", "two"}
    assert names == sorted(names, key=[None, "one", "two"].index)
    assert names[-1] == "two"


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_after_a_power_cut_at_any_sync_a_backup_is_whole_or_not_there(
    site: Site, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site.receive(chest_dataset())
    monkeypatch.setattr(os, "fsync", disk.fsync)
    target = disk.root / name
    config = load(None, {}, {"score": {"banks": str(tmp_path / "none")}})
    back_up(site.engine, site.files, config, target, site.clock(), with_images=True)
    for world in (False, True):
        left = disk.after_a_cut(removals_reached_it=world)
        again = tmp_path / f"again-{world}" / name
        for path, content in left.items():
            if path == name or path.startswith(f"{name}/"):
                (again.parent / path).parent.mkdir(parents=True, exist_ok=True)
                (again.parent / path).write_bytes(content)
        assert len(verify(again)["files"]) == 3
