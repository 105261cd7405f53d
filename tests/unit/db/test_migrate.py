from __future__ import annotations

import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, column, event, inspect, select, text
from sqlalchemy import table as sql_table

from dicom_node.config import Db
from dicom_node.db import migrate, schema
from dicom_node.db.engine import open_engine, reading, writing
from dicom_node.db.moment import UtcDateTime
from dicom_node.domain.errors import DatabaseError

REPOSITORY = Path(__file__).resolve().parents[3]


def indexes(engine: Engine) -> set[str]:
    """Return the definition of every index as the database itself tells it."""
    sql = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    }[engine.dialect.name]
    with reading(engine) as conn:
        return {" ".join(row[0].split()) for row in conn.execute(text(sql)) if "alembic_version" not in row[0]}


def columns(engine: Engine) -> set[tuple[str, str, str, bool, str]]:
    """Return every column with its type, whether it may be null, and its default, as the database tells it."""
    inspector = inspect(engine)
    return {
        (table, column["name"], str(column["type"]), column["nullable"], str(column["default"]))
        for table in schema.metadata.tables
        for column in inspector.get_columns(table)
    }


def test_the_steps_lead_to_exactly_the_tables_of_the_schema(empty_engine: Engine) -> None:
    migrate.upgrade(empty_engine)
    with reading(empty_engine) as conn:
        assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []


def test_the_steps_lead_to_the_same_defaults_and_partial_indexes_as_the_schema(empty_engine: Engine) -> None:
    migrate.upgrade(empty_engine)
    migrated, migrated_columns = indexes(empty_engine), columns(empty_engine)
    with writing(empty_engine) as conn:
        schema.metadata.drop_all(conn)
    with writing(empty_engine) as conn:
        schema.metadata.create_all(conn)
    assert migrated == indexes(empty_engine)
    assert migrated_columns == columns(empty_engine)
    assert sum(" WHERE " in definition for definition in migrated) == 5


def test_the_comparison_sees_a_missing_column(empty_engine: Engine) -> None:
    migrate.upgrade(empty_engine)
    with writing(empty_engine) as conn:
        conn.execute(text("ALTER TABLE work_items DROP COLUMN lease_owner"))
    with reading(empty_engine) as conn:
        assert compare_metadata(MigrationContext.configure(conn), schema.metadata) != []


def test_an_empty_database_has_no_revision_and_an_upgraded_one_is_at_the_head(empty_engine: Engine) -> None:
    assert migrate.current(empty_engine) is None
    migrate.upgrade(empty_engine)
    assert migrate.current(empty_engine) == migrate.head()


def test_upgrading_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as conn:
        conn.execute(schema.node.insert().values(key="device", value="1.2.3"))
    migrate.upgrade(engine)
    with reading(engine) as conn:
        assert conn.execute(schema.node.select()).one() == ("device", "1.2.3")


def test_a_database_of_a_newer_version_is_refused_with_what_to_do(engine: Engine) -> None:
    with writing(engine) as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=rf"9999, which is newer than .*\({migrate.head()}\)"):
        migrate.upgrade(engine)
    assert migrate.current(engine) == "9999"


def test_a_database_that_refuses_a_step_is_left_as_it_was(empty_engine: Engine) -> None:
    with writing(empty_engine) as conn:
        conn.execute(text("CREATE TABLE work_items (other INTEGER)"))
    with pytest.raises(DatabaseError, match="work_items"):
        migrate.upgrade(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["work_items"]


def test_processes_that_start_together_upgrade_once(empty_engine: Engine) -> None:
    url = empty_engine.url.render_as_string(hide_password=False)
    program = (
        "import sys\n"
        "from dicom_node.config import Db\n"
        "from dicom_node.db.engine import open_engine\n"
        "from dicom_node.db.migrate import upgrade\n"
        "sys.stdin.readline()\n"
        "upgrade(open_engine(Db(url=sys.argv[1])))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
        )
        for _ in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:  # each has imported everything and waits for the line
        errors = [error for _, error in pool.map(lambda process: process.communicate(b"go\n"), processes)]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert migrate.current(empty_engine) == migrate.head()


def test_threads_that_start_together_upgrade_once(empty_engine: Engine) -> None:
    engines = [open_engine(Db(url=empty_engine.url.render_as_string(hide_password=False))) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate.upgrade, engines))
    assert migrate.current(empty_engine) == migrate.head()
    for engine in engines:
        engine.dispose()


def test_an_installed_wheel_carries_the_steps(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wanted = ["dicom_node", "training", "pyproject.toml", "LICENSE", "README.md"]
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *wanted],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    (source / "README.md").touch()
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True, text=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = (
        "import sys\n"
        "from dicom_node.config import Db\n"
        "from dicom_node.db import migrate\n"
        "from dicom_node.db.engine import open_engine\n"
        "engine = open_engine(Db(url=sys.argv[1]))\n"
        "migrate.upgrade(engine)\n"
        "print(migrate.__file__, migrate.current(engine) == migrate.head())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'wheel.db'}"],
        cwd=tmp_path, env={"PYTHONPATH": str(installed)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(installed / "dicom_node/db/migrate.py"), "True"]
    assert (installed / "dicom_node/db/migrations/script.py.mako").is_file()


def full_of_rows(engine: Engine) -> dict[str, list[dict[str, object]]]:
    """Fill every table of the first schema and return the rows by table."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    tables = ("node", "associations", "revisions", "instances", "work_items", "reports", "deliveries", "events")
    with writing(engine) as conn:
        first = {name: {c["name"] for c in inspect(conn).get_columns(name)} for name in tables}
        for name in tables:
            table = schema.metadata.tables[name]
            values: dict[str, object] = {}
            for held in (c for c in table.c if c.name in first[name]):
                kind = held.type.python_type
                values[held.name] = (
                    at if isinstance(held.type, UtcDateTime)
                    else {"a": 1} if held.type.__class__.__name__ == "JSON"
                    else kind(1) if kind in {int, bool} else "1"
                )  # fmt: skip
            as_then = sql_table(name, *(column(key, table.c[key].type) for key in values))
            conn.execute(as_then.insert().values(values))
    return rows_of(engine, {name: sorted(columns) for name, columns in first.items()})


def rows_of(engine: Engine, columns: dict[str, list[str]]) -> dict[str, list[dict[str, object]]]:
    with reading(engine) as conn:
        return {
            name: [
                dict(row._mapping)
                for row in conn.execute(select(*(schema.metadata.tables[name].c[c] for c in names)))
            ]
            for name, names in columns.items()
        }


def at_the_first_schema(engine: Engine) -> None:
    config = migrate.alembic_config()
    with writing(engine) as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")


def test_every_row_of_the_first_schema_is_there_unchanged_at_the_newest_and_every_file_counts_as_kept(
    empty_engine: Engine,
) -> None:
    at_the_first_schema(empty_engine)
    before = full_of_rows(empty_engine)
    assert all(len(rows) == 1 for rows in before.values())
    migrate.upgrade(empty_engine)
    assert rows_of(empty_engine, {name: list(rows[0]) for name, rows in before.items()}) == before
    with reading(empty_engine) as conn:
        assert conn.execute(select(schema.instances.c.kept)).scalar_one() == "yes"
        assert conn.execute(select(schema.reports.c.kept)).scalar_one() == "yes"
        assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []


@pytest.mark.parametrize("statement", range(1, 8))
def test_an_upgrade_that_dies_at_any_statement_leaves_the_old_schema_and_can_be_done_again(
    empty_engine: Engine, statement: int
) -> None:
    at_the_first_schema(empty_engine)
    before = full_of_rows(empty_engine)
    seen = [0]

    def die(_conn: object, _cursor: object, sql: str, *_: object) -> None:
        seen[0] += sql.split()[0] in {"CREATE", "ALTER", "UPDATE"}
        if seen[0] == statement:
            raise KeyboardInterrupt

    event.listen(empty_engine, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        migrate.upgrade(empty_engine)
    event.remove(empty_engine, "before_cursor_execute", die)
    assert migrate.current(empty_engine) == "0001"
    assert "marks" not in inspect(empty_engine).get_table_names()
    migrate.upgrade(empty_engine)
    assert migrate.current(empty_engine) == migrate.head()
    assert rows_of(empty_engine, {name: list(rows[0]) for name, rows in before.items()}) == before


def test_a_database_of_the_first_schema_keeps_its_rows_and_gets_the_marks(
    empty_engine: Engine,
) -> None:
    config = migrate.alembic_config()
    with writing(empty_engine) as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
    assert migrate.current(empty_engine) == "0001"
    assert "marks" not in inspect(empty_engine).get_table_names()
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with writing(empty_engine) as conn:
        conn.execute(
            schema.revisions.insert().values(
                study_instance_uid="1.2.3", number=1, opened_at=at, last_received_at=at, closed_at=None
            )
        )
        conn.execute(schema.events.insert().values(at=at, kind="instance.stored", detail={"size": 3}))
    migrate.upgrade(empty_engine)
    assert migrate.current(empty_engine) == migrate.head()
    with writing(empty_engine) as conn:
        conn.execute(
            schema.marks.insert().values(study_instance_uid="1.2.3", mark="normal", said_by="a", at=at)
        )
    with reading(empty_engine) as conn:
        assert conn.execute(schema.revisions.select()).one() == ("1.2.3", 1, at, at, None, None)
        assert conn.execute(schema.events.select()).one().detail == {"size": 3}
        assert conn.execute(schema.marks.select()).one()[1:] == ("1.2.3", "normal", "a", at)
