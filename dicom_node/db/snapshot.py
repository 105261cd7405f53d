"""Copies a whole database while it is in use, and puts such a copy in its place. Knows our tables by name only.

SQLite: its online backup, one consistent file. PostgreSQL: ``pg_dump`` and ``pg_restore`` of the client tools, which
must be at least as new as the server.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Engine, text

from dicom_node.db.engine import reading, writing
from dicom_node.db.schema import metadata
from dicom_node.domain import private
from dicom_node.domain.errors import DatabaseError, NotFoundError

NAMES = {"sqlite": "database.sqlite", "postgresql": "database.dump"}
"""File name of a copy, by the kind of database."""


def take(engine: Engine, target: Path) -> None:
    """Write a consistent copy of the database as of now; who writes meanwhile is not held up.

    Raises
    ------
    NotFoundError
        If ``pg_dump`` is needed and not installed.
    DatabaseError
        If the database is away or cannot be copied.
    """
    if engine.dialect.name == "postgresql":
        _client(engine, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")
        return
    try:
        with closing(sqlite3.connect(_file(engine))) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise DatabaseError(f"the database cannot be copied: {error}") from error


def put(engine: Engine, copy: Path, aside: str) -> None:
    """Put a copy in the place of the database; nobody else may use it meanwhile. `copy` is used up.

    A file that was there before is renamed: `aside` is appended to its name. On PostgreSQL the tables of before
    are replaced, in one transaction; those that the copy has not, since it is of an older schema, go after it.

    Raises
    ------
    NotFoundError, DatabaseError
        As `take`; the database is as before then.
    """
    engine.dispose()
    if engine.dialect.name == "postgresql":
        before = _tables(engine)
        _client(
            engine,
            "pg_restore",
            *("--no-owner", "--no-privileges", "--clean", "--if-exists", "--single-transaction"),
            str(copy),
        )
        with writing(engine) as conn:
            metadata.drop_all(conn, [metadata.tables[name] for name, _ in before & _tables(engine)])
        copy.unlink()
        return
    file = _file(engine)
    staged = file.with_name(f"{file.name}.arriving")
    try:
        _bring(copy, staged)
        with closing(sqlite3.connect(staged)) as connection:
            wrong = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if wrong != "ok":
            raise DatabaseError(f"the copy of the database is damaged: {wrong}")
        for suffix in (
            "-wal",
            "-shm",
            "",
        ):  # the log goes with its database, or would be taken for the new one's
            beside = file.with_name(file.name + suffix)
            if beside.exists():
                beside.rename(file.with_name(file.name + aside + suffix))
        staged.replace(file)
        descriptor = os.open(file.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        copy.unlink()
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"the database cannot be put in its place: {error}") from error
    finally:
        staged.unlink(missing_ok=True)


def _tables(engine: Engine) -> set[tuple[str, int]]:
    """Return name and number of each table of ours; one that is made anew has another number (PostgreSQL)."""
    found = "SELECT relname, oid FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    with reading(engine) as conn:
        return {(row.relname, row.oid) for row in conn.execute(text(found)) if row.relname in metadata.tables}


def _bring(copy: Path, staged: Path) -> None:
    """Write a copy where renaming can put it in its place: the store may be on another file system."""
    with copy.open("rb") as source, open(staged, "wb", opener=private.opener) as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
        target.flush()
        os.fsync(target.fileno())


def without_password(url: URL) -> URL:
    """Return a database's URL as others may see it."""
    # `URL.set` cannot take a password away.
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)


def _file(engine: Engine) -> Path:
    return Path(str(engine.url.database))


def _client(engine: Engine, tool: str, *arguments: str) -> None:
    program = shutil.which(tool)
    if program is None:
        raise NotFoundError(
            f"{tool} is not installed; install PostgreSQL's client tools of the server's version"
        )
    url = without_password(engine.url).set(drivername="postgresql").render_as_string()
    environment = dict(os.environ)
    if engine.url.password is not None:
        environment["PGPASSWORD"] = str(engine.url.password)
    done = subprocess.run(  # noqa: S603 - PostgreSQL's own tool
        [program, f"--dbname={url}", *arguments], env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise DatabaseError(f"{tool} says: {done.stderr.strip()[-500:]}")
