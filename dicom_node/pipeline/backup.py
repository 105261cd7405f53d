"""Writes a backup of a running node: database, reports, steps, banks, settings, and the images where asked.

The database is copied first: files never change and come before their rows, so that each row of the copy finds its
file. Secrets are named by path in the settings and are not copied.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w
from sqlalchemy import Engine, make_url

from dicom_node import __version__
from dicom_node.config import Config
from dicom_node.db import events, migrate, snapshot
from dicom_node.db.engine import writing
from dicom_node.pipeline.archive import FORMAT, MANIFEST, Writer, writing_archive
from dicom_node.score.bank import NAME
from dicom_node.score.bank_store import ACTIVE
from dicom_node.store import shelves, step_files
from dicom_node.store.files import FileStore

SETTINGS = "config.toml"


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup holds: files and bytes in all, and files that were removed while it was written."""

    files: int
    size: int
    vanished: tuple[str, ...]


def back_up(
    engine: Engine, files: FileStore, config: Config, target: Path, at: datetime, *, with_images: bool
) -> BackedUp:
    """Write a backup while the node runs; `target` appears when it is whole.

    Parameters
    ----------
    target
        A tar file if its name ends in ``.tar``, else a folder; must not exist.
    with_images
        Also the images received. Without them a restored node knows its studies and has not their images.

    Raises
    ------
    StoreError, OutOfResourcesError, DatabaseError, NotFoundError
        If something cannot be read or written, or a tool is missing; nothing is left behind then.
    """
    vanished = []
    with writing_archive(target) as writer:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as folder:
            copy = Path(folder) / "database"
            snapshot.take(engine, copy)
            writer.add(snapshot.NAMES[engine.dialect.name], copy)
        writer.add_bytes(SETTINGS, settings(config).encode())
        for name, path in (*_banks(config.score.banks), *_kept(files, with_images=with_images)):
            try:
                writer.add(name, path)
            except FileNotFoundError:
                vanished.append(name)
        done = BackedUp(
            len(writer.files), sum(entry["size"] for entry in writer.files.values()), tuple(vanished)
        )
        writer.add_bytes(MANIFEST, _manifest(engine, writer, at, done, with_images=with_images))
    with writing(engine) as conn:
        events.record(conn, at, "store.backed", files=done.files, bytes=done.size, images=with_images)
    return done


def settings(config: Config) -> str:
    """Return the settings in force as TOML, wherever they came from, without the password in a database's URL."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    url = make_url(config.db.url)
    if url.password is not None:
        values["db"]["url"] = snapshot.without_password(url).render_as_string()
    return "# Settings as they were when the backup was made. Secrets are not in it.\n" + tomli_w.dumps(values)


def _banks(root: Path) -> Iterator[tuple[str, Path]]:
    # What is active first: a bank that becomes active later is there by then, too.
    if (root / ACTIVE).is_file():
        yield f"banks/{ACTIVE}", root / ACTIVE
    for bank in sorted(root.iterdir()) if root.is_dir() else ():
        if NAME.match(bank.name) and bank.is_dir():
            for path in sorted(path for path in bank.rglob("*") if path.is_file()):
                if not any(part.startswith(".") for part in path.relative_to(root).parts):
                    yield f"banks/{path.relative_to(root).as_posix()}", path


def _kept(files: FileStore, *, with_images: bool) -> Iterator[tuple[str, Path]]:
    places = [("reports", files.report_path)]
    if with_images:
        places.append(("instances", files.instance_path))
    for area, path in places:
        for prefix in shelves.PREFIXES:
            for digest in shelves.shelf(files, area, prefix).placed:
                yield f"store/{area}/{prefix}/{digest}.dcm", path(digest)
    for digest in shelves.shelf(files, step_files.FOLDER).placed:
        yield f"store/{step_files.FOLDER}/{digest}.dcm", step_files.path(files, digest)


def _manifest(engine: Engine, writer: Writer, at: datetime, done: BackedUp, *, with_images: bool) -> bytes:
    content = {
        "format": FORMAT,
        "program": __version__,
        "created_at": at.isoformat(timespec="seconds"),
        "database": engine.dialect.name,
        "schema": migrate.current(engine),
        "with_images": with_images,
        "vanished": list(done.vanished),
        "files": writer.files,
    }
    return json.dumps(content, indent=1).encode()
