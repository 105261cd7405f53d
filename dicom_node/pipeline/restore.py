"""Puts a backup, whose hashes were verified, in the place of a node that is gone.

Files first, the database last: a restore that was cut off has no database yet, and is done once more. Sessions, tokens
and links of the backup let nobody in: some may have been taken back since.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import uuid4

from sqlalchemy import Engine, inspect, select

from dicom_node.config import Config
from dicom_node.db import events, migrate, schema, snapshot
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import BankError, StoreError
from dicom_node.pipeline.archive import members
from dicom_node.score.bank import WEIGHTS, check_name, read_manifest
from dicom_node.score.bank_store import ACTIVE
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.store import people, step_files
from dicom_node.store.files import FileStore, told


def restore(
    engine: Engine,
    files: FileStore,
    config: Config,
    source: Path,
    manifest: Mapping[str, Any],
    at: datetime,
    *,
    overwrite: bool,
) -> None:
    """Bring database, banks, reports and images of a backup into the places that the settings name.

    Parameters
    ----------
    engine, files
        Of the node to be; no process may run it meanwhile.
    source, manifest
        The backup, and what `archive.verify` returned for it.
    overwrite
        Also where there is a node with studies already. Its SQLite file is renamed, its files in the store stay,
        and a bank of the same name stays if it is the same.

    Raises
    ------
    StoreError
        If the backup is of another kind of database, or the place is taken; nothing is changed then.
    BankError, DatabaseError, NotFoundError, OutOfResourcesError
        If a step fails; restoring once more, with `overwrite`, is right then.
    """
    kind = engine.dialect.name
    if manifest["database"] != kind:
        raise StoreError(
            f"{source} is of a node on {manifest['database']}; db.url names {kind}. Name the same kind"
        )
    if not overwrite:
        _require_empty(engine, files, config)
    database = files.incoming / f"restore-{uuid4()}"
    banks = config.score.banks
    arriving = banks / f".restoring-{uuid4()}"
    active = b""
    try:
        for name, content in members(source):
            path = PurePosixPath(name)
            if name == snapshot.NAMES[kind]:
                _write(database, content)
            elif name == f"banks/{ACTIVE}":
                active = content.read()
            elif path.parts[0] == "banks":
                _write(arriving.joinpath(*path.parts[1:]), content)
            elif path.parts[0] == "store":
                _keep(files, path, content)
        _place_banks(arriving, banks, active)
        snapshot.put(engine, database, f".before-{at:%Y%m%dT%H%M%S}")
    finally:
        database.unlink(missing_ok=True)
        shutil.rmtree(arriving, ignore_errors=True)
    migrate.upgrade(engine)
    with writing(engine) as conn:
        people.end_everything(conn)
        events.record(
            conn, at, "store.restored", made_at=manifest["created_at"], images=manifest["with_images"]
        )


def _require_empty(engine: Engine, files: FileStore, config: Config) -> None:
    taken = []
    if inspect(engine).has_table("revisions"):
        with reading(engine) as conn:
            if conn.execute(select(schema.revisions.c.number).limit(1)).first() is not None:
                taken.append("its database holds studies")
    if any(
        path.is_file() for area in ("instances", "reports", "steps") for path in (files.root / area).rglob("*")
    ):
        taken.append("its store holds files")
    if config.score.banks.is_dir() and any(
        p.is_dir() and p.name[0] != "." for p in config.score.banks.iterdir()
    ):
        taken.append("its folder of banks holds banks")
    if taken:
        raise StoreError(f"there is a node already: {', '.join(taken)}; restore elsewhere, or say --overwrite")


def _write(path: Path, content: IO[bytes]) -> None:
    with told(f"{path.name} cannot be written"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, 1024 * 1024)


def _keep(files: FileStore, path: PurePosixPath, content: IO[bytes]) -> None:
    """Put a file into the store by its content; its name must be what the content says."""
    if path.parts[1] == "reports":
        if files.put_report(content.read()) != path.stem:
            raise StoreError(f"{path} is not what its name says; the backup was made of a damaged store")
        return
    if path.parts[1] == step_files.FOLDER:
        step_files.put(files, content.read())  # the deep check tells of one that was damaged before the backup
        return
    staged = files.incoming / f"restore-{uuid4()}.dcm"
    try:
        _write(staged, content)
        digest = files.dataset_digest(staged)
        if digest != path.stem:
            return  # damaged before the backup: the deep check tells of the row that misses it
        files.adopt(staged, digest)
    finally:
        staged.unlink(missing_ok=True)


def _place_banks(arriving: Path, root: Path, active: bytes) -> None:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for bank in sorted(arriving.iterdir()) if arriving.is_dir() else ():
        target = root / check_name(bank.name)
        if bank.name == WEIGHTS and target.exists():
            _place_weights(bank, target)
            continue
        if target.exists():
            if read_manifest(target).bank_hash != read_manifest(bank).bank_hash:
                raise BankError(
                    f"another bank {bank.name} is there already; rename its folder, then restore again"
                )
            continue
        for path in bank.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                _sync(path)
        sync_folder(bank)
        bank.rename(target)
    if active:
        staged = root / f".{ACTIVE}.restoring"
        write_synced(staged, active)
        staged.replace(root / ACTIVE)
    sync_folder(root)


def _place_weights(arriving: Path, target: Path) -> None:
    """Add the weights that are missing; each is named by its hash."""
    for path in arriving.iterdir():
        if not (target / path.name).exists():
            _sync(path)
            path.rename(target / path.name)
    sync_folder(target)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
