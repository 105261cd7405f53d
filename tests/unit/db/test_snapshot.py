from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select

from dicom_node.config import Db
from dicom_node.db import migrate, schema, snapshot
from dicom_node.db.engine import Engine, open_engine, reading, writing
from dicom_node.domain.errors import DatabaseError


def node_in(folder: Path, value: str) -> Engine:
    engine = open_engine(Db(url=f"sqlite:///{folder / 'node.db'}"))
    migrate.upgrade(engine)
    with writing(engine) as conn:
        conn.execute(insert(schema.node).values(key="a", value=value))
    return engine


def value_in(engine: Engine) -> str:
    with reading(engine) as conn:
        return str(conn.execute(select(schema.node.c.value)).scalar_one())


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on another file system than `tmp_path`."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - looked at, and written below a private folder
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        yield Path(folder)


def test_a_copy_takes_the_databases_place_from_another_file_system(tmp_path: Path, elsewhere: Path) -> None:
    engine = node_in(tmp_path, "then")
    snapshot.take(engine, elsewhere / "copy")
    with writing(engine) as conn:
        conn.execute(schema.node.update().values(value="now"))
    snapshot.put(engine, elsewhere / "copy", ".before")
    assert value_in(engine) == "then"
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("node.db", "node.db-wal", "node.db-shm"),
        *("node.db.before", "node.db.before-wal", "node.db.before-shm"),
    }
    assert stat.S_IMODE((tmp_path / "node.db").stat().st_mode) == 0o600
    engine.dispose()


def test_a_damaged_copy_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    engine = node_in(tmp_path, "now")
    copy = tmp_path / "copy"
    copy.write_bytes(b"no database at all" * 1000)
    with pytest.raises(DatabaseError, match="cannot be put in its place"):
        snapshot.put(engine, copy, ".before")
    assert value_in(engine) == "now"
    engine.dispose()


def at_revision(engine: Engine, revision: str) -> None:
    config = migrate.alembic_config()
    with writing(engine) as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, revision)


def test_a_backup_of_before_an_upgrade_takes_the_place_of_the_upgraded_database(
    empty_engine: Engine, tmp_path: Path
) -> None:
    if empty_engine.dialect.name == "postgresql" and shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    at_revision(empty_engine, "0012")
    snapshot.take(empty_engine, tmp_path / "copy")
    migrate.upgrade(empty_engine)
    snapshot.put(empty_engine, tmp_path / "copy", ".before")
    assert migrate.current(empty_engine) == "0012"
    migrate.upgrade(empty_engine)
    with reading(empty_engine) as conn:
        assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []
