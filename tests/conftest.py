"""Databases for tests: every test that asks for `engine` runs on SQLite and on PostgreSQL.

PostgreSQL is the server that ``DICOM_NODE_TEST_POSTGRES`` names (its user must be able to create databases),
else a private cluster started from Debian's binaries, else a skip with the reason. Each test gets a database of
its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import authlib.deprecate  # noqa: F401 - it puts a filter of warnings in front of pytest's, if it is imported later
import pytest
from hypothesis import settings
from sqlalchemy import URL, Engine, create_engine, make_url, text

from dicom_node.config import Db
from dicom_node.db.engine import open_engine, writing
from dicom_node.db.migrate import current, head, upgrade
from dicom_node.db.schema import metadata
from dicom_node.domain.errors import DatabaseError

# In CI the same examples every time, so that a change is judged by what it changed; at a desk new ones each time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@dataclass
class PostgresServer:
    """Hands out databases on one server. One that comes back is emptied and handed out again: that is cheap."""

    url: URL
    prefix: str = field(default_factory=lambda: f"dicom_node_test_{os.getpid()}")
    _names: Iterator[int] = field(default_factory=count)
    _free: list[URL] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._admin = create_engine(self.url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")

    def create(self) -> URL:
        name = f"{self.prefix}_{next(self._names)}"
        with self._admin.connect() as conn:
            conn.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        return self.url.set(database=name)

    def drop(self, url: URL) -> None:
        with self._admin.connect() as conn:
            conn.execute(text(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)"))

    def borrow(self) -> URL:
        """Return an empty database at the newest schema."""
        if self._free:
            return self._free.pop()
        url = self.create()
        with _opened(url) as engine:
            upgrade(engine)
        return url

    def give_back(self, url: URL) -> None:
        """Empty a database for the next test; one that a test changed the schema of, or blocks, is dropped."""
        try:
            with _opened(url) as engine, writing(engine) as conn:
                conn.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY"))
                same = current(engine) == head()
        except DatabaseError:
            same = False
        if same:
            self._free.append(url)
        else:
            self.drop(url)

    def close(self) -> None:
        for url in self._free:
            self.drop(url)
        self._admin.dispose()


@contextmanager
def _opened(url: URL) -> Iterator[Engine]:
    engine = open_engine(Db(url=url.render_as_string(hide_password=False)), busy_seconds=5)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a running PostgreSQL server, or skip; one for each pytest-xdist worker."""
    named = os.environ.get("DICOM_NODE_TEST_POSTGRES")
    if named:
        server = PostgresServer(make_url(named))
        yield server
        server.close()
        return
    with cluster() as own:
        server = PostgresServer(own.url)
        yield server
        server._admin.dispose()


@contextmanager
def cluster() -> Iterator[_cluster]:
    """Run a throw-away cluster, or skip where Debian's binaries are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        pytest.skip(
            "no PostgreSQL: DICOM_NODE_TEST_POSTGRES is not set and Debian's binaries are not installed"
        )
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-pg-"))  # short: a socket's path has at most 107 bytes
    try:
        with _cluster(found[-1].parent, folder) as own:
            yield own
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _cluster:  # noqa: N801 - reads as a verb
    """A throw-away cluster on a Unix socket, without fsync, run by `postgres` where we are root."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        self.as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            self.as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    @property
    def url(self) -> URL:
        return URL.create(
            "postgresql", username="postgres", database="postgres", query={"host": str(self.folder)}
        )

    def __enter__(self) -> _cluster:
        data = self.folder / "data"
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}
        subprocess.run(
            [
                str(self.binaries / "initdb"),
                "-D",
                str(data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "-N",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            env=environment,
            **self.as_user,  # type: ignore[call-overload]
        )
        self.start()
        return self

    def start(self) -> None:
        """Run the server on the cluster that is there, and wait until it takes connections."""
        data, environment = self.folder / "data", {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "max_connections": "100",
            "shared_buffers": "32MB",
        }
        command = [str(self.binaries / "postgres"), "-D", str(data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        if shutil.which("setpriv"):  # ends with us even if we are killed
            command = ["setpriv", "--pdeathsig", "INT", "--", *command]
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=self.log,
            cwd=self.folder,
            env=environment,
            **self.as_user,  # type: ignore[call-overload]
        )
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.folder)]
        for _ in range(600):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            if self.process.poll() is not None:
                break
        self.stop()
        raise RuntimeError("PostgreSQL did not start:\n" + (self.folder / "log").read_text(errors="replace"))

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Shut it down at once: whoever is connected is cut off."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.log.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the URL of a migrated PostgreSQL database that only this test uses."""
    url = postgres_server.borrow()
    yield url.render_as_string(hide_password=False)
    postgres_server.give_back(url)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    engine = open_engine(Db(url=f"sqlite:///{path}"))
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a migrated database, once on SQLite and once on PostgreSQL."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    path = tmp_path / "node.db"
    shutil.copyfile(request.getfixturevalue("_sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Return an engine on a migrated database, once on SQLite and once on PostgreSQL."""
    engine = open_engine(Db(url=database_url))
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return an engine on a database without any table, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'empty.db'}"))
        yield engine
        engine.dispose()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create()
    engine = open_engine(Db(url=url.render_as_string(hide_password=False)))
    yield engine
    engine.dispose()
    server.drop(url)
