from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.domain.errors import OutOfResourcesError, StoreError
from dicom_node.store.files import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", 0)


def test_space_is_refused_below_the_reserve(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store", 10**9)
    store.require_space()
    with pytest.raises(OutOfResourcesError, match=r"1000000000 must stay free \(store.reserve_megabytes\)"):
        store.require_space(10**18)
    with pytest.raises(OutOfResourcesError):
        FileStore(tmp_path / "store", 10**18).require_space()


def test_a_report_is_read_back_as_it_was_put(store: FileStore) -> None:
    digest = store.put_report(b"a report")
    assert digest == hashlib.sha256(b"a report").hexdigest()
    assert store.read_report(digest) == b"a report"
    assert store.put_report(b"a report") == digest
    (path,) = (store.root / "reports").rglob("*.dcm")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(store.incoming.iterdir()) == []


def test_a_damaged_report_is_not_handed_out_and_is_mended_by_putting_it_again(store: FileStore) -> None:
    digest = store.put_report(b"a report")
    (path,) = (store.root / "reports").rglob("*.dcm")
    path.write_bytes(b"a repost")
    with pytest.raises(StoreError, match=f"{digest} is damaged"):
        store.read_report(digest)
    store.put_report(b"a report")
    assert store.read_report(digest) == b"a report"


def test_a_missing_report_is_said_to_be_missing(store: FileStore) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.read_report("0" * 64)


def test_the_sweep_removes_what_is_stale_and_nothing_else(store: FileStore) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for name, hours in (("stale", 2), ("fresh", 0)):
        moment = (now - timedelta(hours=hours)).timestamp()
        (store.incoming / name).touch()
        os.utime(store.incoming / name, (moment, moment))
    (kept,) = (store.root / "reports" / store.put_report(b"a report")[:2]).iterdir()
    os.utime(kept, (0, 0))
    assert store.sweep_incoming(now - timedelta(hours=1)) == 1
    assert [path.name for path in store.incoming.iterdir()] == ["fresh"]
    assert kept.exists()


def test_a_root_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        FileStore(tmp_path / "file" / "store", 0)
