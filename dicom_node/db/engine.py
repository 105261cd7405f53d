"""Opens the database. Owns what each database needs to be durable; knows nothing of the tables.

SQLite: WAL, synchronous=FULL, foreign keys, and BEGIN IMMEDIATE so that a writer waits at the start of its
transaction instead of failing in the middle. PostgreSQL: synchronous commit whatever the server's default, and
bounds on every wait (connect, silent peer, lock, idle transaction), so that a C-STORE is answered in any case.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.config import Db
from dicom_node.domain import private
from dicom_node.domain.errors import ConfigError, DatabaseError

__all__ = ["BUSY_SECONDS", "Engine", "open_engine", "reading", "writing"]

BUSY_SECONDS = 30.0

_OF_THE_ROWS = (DataError, IntegrityError)
"""Errors that the rows themselves bring about: a fault of this program, and not of the database."""


def open_engine(config: Db, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Return an engine for ``[db] url``; the folder of an SQLite file is created.

    Parameters
    ----------
    config
        The section ``[db]``.
    busy_seconds
        How long a statement waits for another transaction before it gives up.

    Raises
    ------
    ConfigError
        If the URL cannot be read, names an unknown database, or its password file is missing.
    """
    try:
        url = make_url(config.url)
    except (ArgumentError, ValueError):  # whose words, and the URL itself, may hold a password
        raise ConfigError(
            ["db.url: cannot be read; write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"]
        ) from None
    if "@" in (url.host or ""):
        raise ConfigError(
            ["db.url: holds more than one @; use db.password_file, or write an @ in a password as %40"]
        )
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError([f"db.url: {url.get_backend_name()!r} is not supported; sqlite and postgresql are"])
    if config.password_file is not None:
        try:
            url = url.set(password=config.password_file.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise ConfigError([f"db.password_file: cannot be read: {error}"]) from error
        except UnicodeDecodeError:
            raise ConfigError([f"db.password_file: {config.password_file} is no text in UTF-8"]) from None
    if url.get_backend_name() == "sqlite":
        if url.database in {None, "", ":memory:"}:
            raise ConfigError(["db.url: an in-memory database would lose every study; name a file"])
        _make_private(Path(str(url.database)))
        engine = create_engine(
            url, connect_args={"timeout": busy_seconds, "check_same_thread": False}, hide_parameters=True
        )
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=_postgresql_arguments(url, busy_seconds),
            pool_pre_ping=True,
            hide_parameters=True,
            pool_size=10,
        )
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(["db.url: PostgreSQL needs the extra: pip install 'dicom-node[postgres]'"]) from error


def _make_private(path: Path) -> None:
    """Make an SQLite file, and the folder it is in, the owner's alone; SQLite gives its companions the same mode."""
    try:
        private.make_folder(path.parent)
    except OSError as error:
        raise ConfigError([f"db.url: the folder {path.parent} cannot be made: {error.strerror}"]) from error
    if str(path).startswith("file:"):  # a URI of SQLite's own
        return
    with contextlib.suppress(OSError):  # told by the first connection
        os.close(private.opener(str(path), os.O_RDWR | os.O_CREAT))
    private.close_to_others(path)


def _postgresql_arguments(url: URL, busy_seconds: float) -> dict[str, Any]:
    """Bound every wait; what the URL itself says stands."""
    arguments: dict[str, Any] = {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "options": f"-c synchronous_commit=on -c lock_timeout={int(busy_seconds * 1000)}"
        " -c idle_in_transaction_session_timeout=60000",
    }
    return {key: value for key, value in arguments.items() if key not in url.query}


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(conn: Connection) -> None:
    deferred = conn.get_execution_options().get("read_only", False)
    conn.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that may write; commits at the end, rolls back on an exception.

    Raises
    ------
    DatabaseError
        If the database is away, locked for longer than `BUSY_SECONDS`, takes no writes (a standby), is damaged,
        or has not the tables and rights that are needed.
    """
    with _told(), engine.begin() as conn:
        yield conn


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads and does not hold up a writer.

    Raises
    ------
    DatabaseError
        As for `writing`.
    """
    with _told(), engine.connect().execution_options(read_only=True) as conn, conn.begin():
        yield conn


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except _OF_THE_ROWS:
        raise
    except (DBAPIError, PoolTimeoutError) as error:
        raise _away(error) from error


def _away(error: SQLAlchemyError) -> DatabaseError:
    return DatabaseError(f"the database did not do what was asked: {getattr(error, 'orig', None) or error}")
