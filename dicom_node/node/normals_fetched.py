"""Builds what fetches normals for a bank into a private folder: nothing of them enters the node."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.config import ArchiveFetched, Config, Receive, ReceiveTls
from dicom_node.domain.errors import ConfigError
from dicom_node.node.opening import Node, now
from dicom_node.node.retrieving import archive_named, retriever

if TYPE_CHECKING:
    from dicom_node.pipeline.intake import IntoFolder


@contextmanager
def normals(node: Node, text: str) -> Iterator[tuple[Path, str]]:
    """Fetch normals for a bank into a private folder that is gone at the end of the block.

    An archive that sends by C-MOVE sends to an SCP of this folder's own, that listens meanwhile.

    Parameters
    ----------
    text
        As `pipeline.normals.NormalsQuery.parse` takes it.

    Yields
    ------
    Path, str
        A CSV of them, and where they came from.
    """
    from dicom_node.pipeline.intake import IntoFolder
    from dicom_node.pipeline.normals import NormalsQuery, gather, room
    from dicom_node.pipeline.rebuild import patient_key

    config = node.config
    query = NormalsQuery.parse(text)
    archive = archive_named(config, query.archive)
    title = _own_title(config, query.archive)
    largest = config.receive.maximum_dataset_megabytes * 1_000_000
    with tempfile.TemporaryDirectory(prefix="dicom-node-") as name:
        folder = Path(name)
        admit = room(folder, config.store.reserve_megabytes * 1_000_000)
        into = IntoFolder(folder, admit, largest, now)
        table = folder / "normals.csv"
        fetch = retriever(config, into, held=into.held, ae_title=title)
        with _listening(_receive(config, query.archive), folder, into) if title else nullcontext():
            gather(fetch, archive, query, into.files, table, patient_key(node.engine), time.sleep)
        yield table, query.source


def _own_title(config: Config, name: str) -> str:
    """Return the AE title that a C-MOVE names; "" for an archive that is fetched from otherwise."""
    section = _section(config, name)
    if section.how == "c-move" and section.normals_ae_title is None:
        fault = (
            f'archives: {name} is set to how = "c-move", which brings images into the node itself; for normals set '
            'normals_ae_title and normals_port, which the archive must know, or how = "c-get" or "wado"'
        )
        raise ConfigError([fault])
    return section.normals_ae_title or ""


def _section(config: Config, name: str) -> ArchiveFetched:
    return next(section for section in config.archives if section.name == name)


def _receive(config: Config, name: str) -> Receive:
    """Return how images are taken meanwhile: by the rules of `[receive]`, at the normals' own title and port."""
    section, receive = _section(config, name), config.receive
    port = {"port": section.normals_port}
    where = {**port, "tls": ReceiveTls()} if receive.plain else {"tls": receive.tls.model_copy(update=port)}
    return receive.model_copy(
        update={"ae_title": section.normals_ae_title, "require_called_ae_title": True, **where}
    )


@contextmanager
def _listening(receive: Receive, folder: Path, into: IntoFolder) -> Iterator[None]:
    from dicom_node.receive.scp import Scp

    scp = Scp(
        receive,
        incoming=folder,
        ingest=into.take,
        admit=into.admit,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=now,
    )
    scp.start()
    try:
        yield
    finally:
        scp.stop()
