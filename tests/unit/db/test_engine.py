from __future__ import annotations

import os
import stat
import traceback
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, make_url, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from dicom_node.config import Db
from dicom_node.db import events, schema
from dicom_node.db.engine import open_engine, reading, writing
from dicom_node.domain.errors import ConfigError, DatabaseError


def test_what_is_written_is_there_for_the_next_reader(engine: Engine) -> None:
    with writing(engine) as conn:
        conn.execute(insert(schema.node).values(key="a", value="1"))
    with reading(engine) as conn:
        assert conn.execute(select(schema.node)).one() == ("a", "1")


def test_an_exception_undoes_everything(engine: Engine) -> None:
    def twice() -> None:
        with writing(engine) as conn:
            conn.execute(insert(schema.node).values(key="a", value="1"))
            conn.execute(insert(schema.node).values(key="a", value="2"))

    with pytest.raises(IntegrityError):
        twice()
    with reading(engine) as conn:
        assert conn.execute(select(schema.node)).all() == []


def test_the_database_commits_durably(engine: Engine) -> None:
    with reading(engine) as conn:
        if engine.dialect.name == "sqlite":
            pragmas = [
                conn.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert pragmas == ["wal", 2, 1]
        else:
            assert conn.execute(text("SHOW synchronous_commit")).scalar() == "on"
            assert conn.execute(text("SHOW transaction_isolation")).scalar() == "read committed"


def test_a_row_locked_by_another_for_too_long_is_told_as_the_database_being_away(database_url: str) -> None:
    patient, hasty = open_engine(Db(url=database_url)), open_engine(Db(url=database_url), busy_seconds=0.1)
    with writing(patient) as conn:
        conn.execute(insert(schema.node).values(key="a", value="1"))
    change = schema.node.update().values(value="2")
    with writing(patient) as conn:
        conn.execute(change)
        with pytest.raises(DatabaseError, match="lock") as caught, writing(hasty) as other:
            other.execute(change)
    assert caught.value.retryable
    patient.dispose()
    hasty.dispose()


def test_a_reader_does_not_wait_for_a_writer(database_url: str) -> None:
    writer, reader = open_engine(Db(url=database_url)), open_engine(Db(url=database_url), busy_seconds=0.1)
    with writing(writer) as conn:
        conn.execute(insert(schema.node).values(key="a", value="1"))
        with reading(reader) as other:
            assert other.execute(select(schema.node)).all() == []
    writer.dispose()
    reader.dispose()


def test_a_server_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    engine = open_engine(Db(url=f"postgresql://node@/node?host={tmp_path}"))
    with pytest.raises(DatabaseError), reading(engine):
        pass


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://host/name", "'mysql' is not supported"),
        ("sqlite://", "in-memory"),
        ("sqlite:////dev/null/folder/node.db", "cannot be made"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_fault_of_the_configuration(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"db\.url: .*{said}"):
        open_engine(Db(url=url))


def test_a_password_comes_from_its_file_and_is_in_no_message(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret/?\n", encoding="utf-8")
    url = f"postgresql://node@/node?host={tmp_path}"
    engine = open_engine(Db(url=url, password_file=tmp_path / "password"))
    assert engine.url.password == "s3cret/?"  # noqa: S105 - a test's
    with pytest.raises(DatabaseError) as caught, reading(engine):
        pass
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"db\.password_file"):
        open_engine(Db(url=url, password_file=tmp_path / "missing"))


def test_a_moment_comes_back_in_utc_whatever_zone_it_had(engine: Engine) -> None:
    noon = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
    with writing(engine) as conn:
        events.record(conn, noon, "test", study_instance_uid="1.2.3", answer=42)
    with reading(engine) as conn:
        (event,) = conn.execute(select(schema.events)).all()
    assert event.at == noon
    assert event.at.tzinfo is UTC
    assert (event.kind, event.study_instance_uid, event.detail) == ("test", "1.2.3", {"answer": 42})


def test_a_moment_without_a_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(StatementError, match="naive"), writing(engine) as conn:
        events.record(conn, datetime(2026, 3, 1), "test")  # noqa: DTZ001 - what is tested


def test_an_image_cannot_name_a_revision_that_is_not_there(engine: Engine) -> None:
    row = dict.fromkeys((c.name for c in schema.instances.c), "1.2")
    values = {
        **row, "id": 1, "size": 1, "revision": 9, "conflict": False, "received_at": datetime.now(UTC),
    }  # fmt: skip
    with pytest.raises(IntegrityError), writing(engine) as conn:
        conn.execute(insert(schema.instances).values(values))


SECRET = "xSECRETx"  # noqa: S105 - a test's


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://node:{SECRET}@127.0.0.1:{SECRET}/node",
        f"postgresql://node:a@{SECRET}@127.0.0.1/node",
        f"{SECRET} is no URL",
        f"postgresql://node:{SECRET}@127.0.0.1:1/node",
        f"postgresql://node:{SECRET}@127.0.0.1:1/node?nonsense=1",
        f"postgresql://node:{SECRET}@no-such-host.invalid/node",
        f"postgresql://node:{SECRET}@127.0.0.1:70000/node",
        f"postgresql://node:{SECRET}@127.0.0.1:1/node?sslrootcert=/missing&sslmode=verify-full",
        f"mysql://node:{SECRET}@127.0.0.1/node",
    ],
)
def test_a_password_in_the_url_is_in_no_message_and_no_traceback(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises((ConfigError, DatabaseError)) as caught:  # noqa: SIM117 - either of the two raises
        with reading(open_engine(Db(url=url))):
            pass
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(Db(url=url))
    assert SECRET not in told


def test_a_password_that_the_server_does_not_take_is_in_no_message(postgres_url: str) -> None:
    url = make_url(postgres_url).set(username="nobody-of-that-name", password=SECRET)
    with (
        pytest.raises(DatabaseError) as caught,
        reading(open_engine(Db(url=url.render_as_string(hide_password=False)))),
    ):
        pass
    assert "nobody-of-that-name" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_password_file_that_is_no_text_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff" + SECRET.encode())
    with pytest.raises(ConfigError, match=r"db\.password_file: .*UTF-8") as caught:
        open_engine(Db(url="postgresql://node@127.0.0.1/node", password_file=tmp_path / "password"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_file_of_the_database_and_its_companions_are_the_owners_alone(
    tmp_path: Path, before: int | None
) -> None:
    path = tmp_path / "new" / "node.db"
    umask = os.umask(0)
    try:
        if before is not None:
            path.parent.mkdir()
            path.touch(before)
        engine = open_engine(Db(url=f"sqlite:///{path}"))
        with writing(engine) as conn:
            conn.execute(text("CREATE TABLE t (a INTEGER)"))
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    finally:
        os.umask(umask)
    engine.dispose()
    assert modes == {"node.db": 0o600, "node.db-wal": 0o600, "node.db-shm": 0o600}
    assert before is not None or stat.S_IMODE(path.parent.stat().st_mode) == 0o700
