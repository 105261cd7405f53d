from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.domain.errors import OutOfResourcesError, StoreError
from dicom_node.store.files import FileStore

REPOSITORY = Path(__file__).resolve().parents[3]
DATASET = b"\x08\x00\x16\x00UI\x04\x001.2\x00" + bytes(range(256)) * 40


def part10(dataset: bytes = DATASET, sender: bytes = b"MODALITY") -> tuple[bytes, int]:
    """Return a Part 10 file and where its data set begins."""
    meta = b"\x02\x00\x16\x00AE" + len(sender).to_bytes(2, "little") + sender
    head = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta
    return head + dataset, len(head)


def stage(store: FileStore, content: bytes | None = None, name: str = "staged") -> Path:
    path = store.incoming / name
    path.write_bytes(part10()[0] if content is None else content)
    return path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


DIGEST = hashlib.sha256(DATASET).hexdigest()


class Syncs:
    """An fsync that remembers what was made durable, and what the folder held at that moment."""

    def __init__(self, fail_at: int | None = None, number: int = errno.EIO) -> None:
        self.seen: list[tuple[Path, list[str]]] = []
        self.fail_at, self.number = fail_at, number

    def __call__(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self.fail_at == len(self.seen):
            raise OSError(self.number, os.strerror(self.number))
        os.fsync(descriptor)
        self.seen.append((path, sorted(os.listdir(path)) if path.is_dir() else []))  # noqa: PTH208 - names

    @property
    def paths(self) -> list[Path]:
        return [path for path, _ in self.seen]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", 0)


def test_the_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    root = tmp_path / "a" / "store"
    FileStore(root, 0)
    assert sorted(path.name for path in root.iterdir()) == ["incoming", "instances", "reports"]
    assert {mode(path) for path in (root, *root.iterdir())} == {0o700}


def test_every_new_folder_is_durable_before_anything_is_put_inside(tmp_path: Path) -> None:
    syncs = Syncs()
    root = tmp_path / "a" / "store"
    FileStore(root, 0, fsync=syncs)
    assert syncs.seen[:2] == [(tmp_path, ["a"]), (root.parent, ["store"])]
    assert syncs.seen[-1] == (root, ["incoming", "instances", "reports"])


def test_the_digest_is_of_the_data_set_alone(store: FileStore) -> None:
    content, offset = part10()
    assert store.digest(stage(store, content), offset) == (DIGEST, len(DATASET))
    other, offset = part10(sender=b"ANOTHER")
    assert store.digest(stage(store, other), offset) == (DIGEST, len(DATASET))


def test_a_file_that_ends_before_its_data_set_has_no_digest(store: FileStore) -> None:
    with pytest.raises(StoreError, match="ends 2 bytes before its data set; it should begin at 12"):
        store.digest(stage(store, bytes(10)), 12)


def test_an_adopted_file_is_moved_as_it_is_and_private(store: FileStore) -> None:
    staged = stage(store)
    path = store.adopt(staged, DIGEST)
    assert path == store.instance_path(DIGEST) == store.root / "instances" / DIGEST[:2] / f"{DIGEST}.dcm"
    assert path.read_bytes() == part10()[0]
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert not staged.exists()


def test_file_and_folders_are_synced_in_order_before_adopt_returns(tmp_path: Path) -> None:
    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, fsync=syncs)
    staged = stage(store)
    syncs.seen.clear()
    path = store.adopt(staged, DIGEST)
    at = {p: n for n, p in enumerate(syncs.paths)}
    # its folder's own name, the bytes, and the file's name in its folder, which must be there by then
    assert set(at) == {path.parent.parent, staged, path.parent}
    assert at[path.parent] == len(syncs.seen) - 1
    assert syncs.seen[at[path.parent.parent]][1] == [DIGEST[:2]]
    assert syncs.seen[at[path.parent]][1] == [path.name]


def test_a_second_file_in_the_same_folder_costs_two_syncs(tmp_path: Path) -> None:
    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, fsync=syncs)
    store.adopt(stage(store), DIGEST)
    syncs.seen.clear()
    twin = DIGEST[:2] + "0" * 62
    path = store.adopt(stage(store), twin)
    assert syncs.paths == [store.incoming / "staged", path.parent]


def test_a_folder_that_another_process_made_is_synced_too(tmp_path: Path) -> None:
    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, fsync=syncs)
    (store.root / "instances" / DIGEST[:2]).mkdir()
    syncs.seen.clear()
    store.adopt(stage(store), DIGEST)
    assert store.root / "instances" in syncs.paths


def test_a_good_file_already_there_stays_and_is_synced(tmp_path: Path) -> None:
    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, fsync=syncs)
    first = store.adopt(stage(store), DIGEST)
    inode = first.stat().st_ino
    syncs.seen.clear()
    staged = stage(store, part10(sender=b"ANOTHER")[0])
    assert store.adopt(staged, DIGEST) == first
    assert first.stat().st_ino == inode
    assert first.read_bytes() == part10()[0]
    assert not staged.exists()
    assert syncs.paths == [first, first.parent]


def test_adopting_what_was_adopted_before_is_no_error(store: FileStore) -> None:
    staged = stage(store)
    assert store.adopt(staged, DIGEST) == store.adopt(staged, DIGEST)


def test_adopting_a_file_that_is_nowhere_is_an_error(store: FileStore) -> None:
    with pytest.raises(StoreError, match=DIGEST):
        store.adopt(store.incoming / "nothing", DIGEST)
    assert not store.instance_path(DIGEST).exists()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:100], id="cut in the preamble"),
        pytest.param(lambda content: content[:150], id="cut in the meta information"),
        pytest.param(lambda content: content[:-1], id="cut at the end"),
        pytest.param(lambda content: content[:-1] + b"x", id="one byte changed"),
        pytest.param(lambda content: content[:140] + b"\xff\xff\xff\xff" + content[144:], id="absurd length"),
    ],
)
def test_a_damaged_file_already_there_is_replaced(store: FileStore, damage: Callable[[bytes], bytes]) -> None:
    path = store.adopt(stage(store), DIGEST)
    path.write_bytes(damage(part10()[0]))
    store.adopt(stage(store), DIGEST)
    assert path.read_bytes() == part10()[0]


def test_a_file_system_without_hard_links_serves_too(tmp_path: Path) -> None:
    def no_link(_from: Path, _to: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, link=no_link, fsync=syncs)
    path = store.adopt(stage(store), DIGEST)
    assert path.read_bytes() == part10()[0]
    assert syncs.seen[-1] == (path.parent, [path.name])
    assert list(store.incoming.iterdir()) == []


def test_a_file_that_another_process_placed_at_the_same_moment_is_synced_and_kept(tmp_path: Path) -> None:
    rival = FileStore(tmp_path / "store", 0)

    def late_link(source: Path, target: Path) -> None:
        rival.adopt(stage(rival, part10(sender=b"RIVAL")[0], "rival"), DIGEST)
        os.link(source, target)

    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, link=late_link, fsync=syncs)
    path = store.adopt(stage(store), DIGEST)
    assert path.read_bytes() == part10(sender=b"RIVAL")[0]
    assert path in syncs.paths
    assert list(store.incoming.iterdir()) == []


def test_threads_that_adopt_the_same_bytes_leave_one_whole_file(store: FileStore) -> None:
    staged = [stage(store, name=f"staged {n}") for n in range(8)]
    start = threading.Barrier(8)

    def adopt(path: Path) -> Path:
        start.wait(30)
        return store.adopt(path, DIGEST)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(adopt, staged))) == 1
    assert store.instance_path(DIGEST).read_bytes() == part10()[0]
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_where_a_sync_fails_adopt_says_so_and_can_be_called_again(tmp_path: Path, fail_at: int) -> None:
    FileStore(tmp_path / "store", 0)
    store = FileStore(tmp_path / "store", 0, fsync=(syncs := Syncs()))
    staged = stage(store)
    syncs.seen.clear()
    syncs.fail_at = fail_at
    with pytest.raises(StoreError, match="Input/output error"):
        store.adopt(staged, DIGEST)
    assert staged.exists()
    syncs.fail_at = None
    assert store.adopt(staged, DIGEST).read_bytes() == part10()[0]
    assert not staged.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_out_of_resources(tmp_path: Path, number: int) -> None:
    store = FileStore(tmp_path / "store", 0, fsync=(syncs := Syncs(number=number)))
    staged = stage(store)
    syncs.fail_at = len(syncs.seen)
    with pytest.raises(OutOfResourcesError, match=DIGEST):
        store.adopt(staged, DIGEST)
    with pytest.raises(OutOfResourcesError):
        store.put_report(b"report")
    assert [path.name for path in store.incoming.iterdir()] == ["staged"]


@pytest.mark.parametrize("syncs_before", [0, 1, 2])
def test_after_a_death_at_any_sync_the_store_takes_the_same_bytes_again(
    tmp_path: Path, syncs_before: int
) -> None:
    root = tmp_path / "store"
    store = FileStore(root, 0)
    staged = stage(store)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dicom_node.store.files import FileStore\n"
        "left = [3 + int(sys.argv[4])]  # opening the store takes three\n"
        "def fsync(descriptor):\n"
        "    if left[0] == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    os.fsync(descriptor)\n"
        "FileStore(Path(sys.argv[1]), 0, fsync=fsync).adopt(Path(sys.argv[2]), sys.argv[3])\n"
    )
    arguments = [str(root), str(staged), DIGEST, str(syncs_before)]
    dead = subprocess.run([sys.executable, "-c", program, *arguments], cwd=REPOSITORY, check=False)
    assert dead.returncode == -9
    path = store.adopt(stage(store, name="sent again"), DIGEST)
    assert path.read_bytes() == part10()[0]
    store.sweep_incoming(datetime.now(UTC) + timedelta(days=1))
    assert path.read_bytes() == part10()[0]
    assert list(store.incoming.iterdir()) == []


def test_a_report_is_durable_before_put_report_returns(tmp_path: Path) -> None:
    syncs = Syncs()
    store = FileStore(tmp_path / "store", 0, fsync=syncs)
    syncs.seen.clear()
    digest = store.put_report(b"a report")
    folder = store.root / "reports" / digest[:2]
    assert syncs.seen[-1] == (folder, [f"{digest}.dcm"])
    assert any(path.parent == store.incoming for path in syncs.paths)
