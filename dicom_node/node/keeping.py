"""Builds what keeps a node's possessions in order: the deep check and its repairs, retention, backup, restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.config import Config, load
from dicom_node.db.engine import open_engine
from dicom_node.domain.errors import ConfigError, StoreError
from dicom_node.node.accounting import person
from dicom_node.node.opening import Node, now
from dicom_node.node.working import equipment
from dicom_node.store.files import FileStore

if TYPE_CHECKING:
    from dicom_node.pipeline.backup import BackedUp
    from dicom_node.pipeline.deep import Seen
    from dicom_node.pipeline.retention import Pruned
    from dicom_node.store.stocktaking import Amount


def amount(node: Node) -> Amount:
    """Return how much a deep check has to look at."""
    from dicom_node.pipeline import deep

    return deep.amount(node.engine)


def deep_check(node: Node, *, repair: bool, looked_at: Callable[[int], None]) -> Iterator[Seen]:
    """Look at every file and row and yield each fault, mended where `repair` says so; see `pipeline.deep`."""
    from dicom_node.pipeline import deep
    from dicom_node.pipeline.ingest import Ingest

    if not repair:
        return deep.look(node.engine, node.files, now, None, looked_at)
    from dicom_node.pipeline.remake import remake
    from dicom_node.pipeline.repair import Repair

    mend = Repair(
        node.engine,
        node.files,
        Ingest(node.engine, node.files, node.device_uid, now),
        partial(remake, node.engine, node.files, equipment(node)),
        now,
    )
    return deep.look(node.engine, node.files, now, mend, looked_at)


def prune(node: Node, *, dry_run: bool) -> Pruned:
    """Remove what has had its time, or only say what; see `pipeline.retention` and `pipeline.step_keeping`."""
    from dicom_node.node import stepping
    from dicom_node.pipeline import retention

    pruned = retention.prune(
        node.engine, node.files, node.config.store, now, dry_run=dry_run, audit=node.audit, by=person()
    )
    return replace(pruned, steps=stepping.prune(node, dry_run=dry_run))


def back_up(node: Node, target: Path, *, with_images: bool) -> BackedUp:
    """Write a backup while the node runs; see `pipeline.backup`."""
    from dicom_node.pipeline import backup

    return backup.back_up(node.engine, node.files, node.config, target, now(), with_images=with_images)


def restore(
    source: Path, settings: Callable[[], Config], into: Path | None, *, overwrite: bool
) -> tuple[Mapping[str, Any], Config]:
    """Bring a backup into the places that settings name; see `pipeline.restore`.

    Parameters
    ----------
    settings
        Returns the settings; not asked with `into`.
    into
        Put everything below this folder, the backup's own settings included.

    Returns
    -------
    tuple
        The backup's manifest, and the settings of the node that is there now.
    """
    from dicom_node.pipeline import archive
    from dicom_node.pipeline import restore as restoring

    manifest = archive.verify(source)
    config = settings() if into is None else load(_settle(source, into, overwrite=overwrite))
    engine = open_engine(config.db)
    try:
        files = FileStore(config.store.root, config.store.reserve_megabytes * 1_000_000)
        restoring.restore(engine, files, config, source, manifest, now(), overwrite=overwrite)
    finally:
        engine.dispose()
    return manifest, config


def _settle(source: Path, folder: Path, *, overwrite: bool) -> Path:
    """Write the settings of a backup into a folder, with all places below it; return their file."""
    import tomllib

    import tomli_w

    from dicom_node.pipeline.archive import members
    from dicom_node.pipeline.backup import SETTINGS

    target = folder / SETTINGS
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists already; restore elsewhere, or say --overwrite")
    content = next((file.read() for name, file in members(source) if name == SETTINGS), b"")
    values = tomllib.loads(content.decode())
    if not str(values.get("db", {}).get("url", "")).startswith("sqlite:"):
        raise ConfigError(["db.url: the node ran on PostgreSQL; restore with --config, which names a database"])
    root = folder.absolute()
    values["db"] = {"url": f"sqlite:///{root / 'node.db'}"}
    values["store"]["root"] = str(root / "store")
    values["score"]["banks"] = str(root / "banks")
    values.get("audit", {}).pop("path", None)  # then it is kept in the store
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = target.with_name(f".{SETTINGS}.writing")
    staged.touch(mode=0o600)
    staged.write_text(tomli_w.dumps(values), encoding="utf-8")
    load(staged)  # tells now what this version does not take
    staged.replace(target)
    return target
