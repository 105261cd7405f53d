"""Brings a database to the schema of this version. Owns Alembic's configuration; the steps are in `migrations`.

There is no ``alembic.ini``: the steps travel inside the package. A developer adds the next one with
``alembic.command.revision(migrate.alembic_config(), "what it does", rev_id="0002")`` and fills it in by hand; a
test compares the result of all steps with `schema.metadata` on both databases.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DatabaseError

_LOCK = 0x6469636F6D6E6F64  # "dicomnod": any constant will do, but it must never change


def alembic_config() -> Config:
    """Return Alembic's configuration, which points at the steps inside this package."""
    config = Config()
    location = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", location.replace("%", "%%"))
    return config


def head() -> str:
    """Return the revision that this version of the program needs."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if revision is None:
        raise DatabaseError("the installation is incomplete: it has no database migrations; install it again")
    return revision


def current(engine: Engine) -> str | None:
    """Return the revision a database is at; None where it has no tables of ours yet.

    Raises
    ------
    DatabaseError
        If the database is away.
    """
    with reading(engine) as conn:
        return MigrationContext.configure(conn).get_current_revision()


def upgrade(engine: Engine) -> None:
    """Bring the database to `head` in one transaction. Processes that start together wait for each other.

    Raises
    ------
    DatabaseError
        If the database is away, was written by a newer version, or refuses a step; it is then unchanged.
    """
    config = alembic_config()
    with writing(engine) as conn:  # on SQLite this begins with BEGIN IMMEDIATE, which is the lock
        if conn.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if _is_behind(conn, config):
            config.attributes["connection"] = conn
            try:
                command.upgrade(config, "head")
            except DBAPIError as error:
                raise DatabaseError(
                    f"the database refused the step to revision {head()} and is unchanged: {error.orig}"
                ) from error


def _is_behind(conn: Connection, config: Config) -> bool:
    scripts = ScriptDirectory.from_config(config)
    known = {step.revision for step in scripts.walk_revisions()}
    seen = MigrationContext.configure(conn).get_current_revision()
    if seen is not None and seen not in known:
        raise DatabaseError(
            f"the database is at revision {seen}, which is newer than this version of the program knows "
            f"({scripts.get_current_head()}); run the newer version, or restore the backup of before"
        )
    return seen != scripts.get_current_head()
