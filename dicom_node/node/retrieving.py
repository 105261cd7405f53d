"""Builds what fetches images from archives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dicom_node.config import ArchiveFetched, Config
from dicom_node.db.engine import reading
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.limits import Window
from dicom_node.domain.retrieval import Archive
from dicom_node.domain.security import ClientSecurity
from dicom_node.node.arriving import arrivals
from dicom_node.node.opening import Node, calling_ae_title, now

if TYPE_CHECKING:
    from dicom_node.worklist.intake import Intakes
    from dicom_node.worklist.retrieve import Retrieve

    Held = Callable[[str], frozenset[str]]


def archives_of(config: Config) -> dict[str, Archive]:
    """Return the configured archives by name."""
    return {section.name: _archive(section) for section in config.archives}


def archive_named(config: Config, name: str) -> Archive:
    """Return one of the configured archives.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    known = archives_of(config)
    if name not in known:
        raise ConfigError(
            [f"archives: there is none named {name!r}; configured are: {', '.join(known) or 'none'}"]
        )
    return known[name]


def fetcher(node: Node) -> Retrieve:
    """Return what fetches images into the node; it implements `domain.retrieval.Fetcher`, and counts."""
    from dicom_node.pipeline.intake import IntoStore
    from dicom_node.store import holdings

    ingest, opened, ended = arrivals(node)

    def held(study_instance_uid: str) -> frozenset[str]:
        with reading(node.engine) as conn:
            return holdings.held(conn, study_instance_uid)

    def own(study_instance_uid: str) -> frozenset[str]:
        with reading(node.engine) as conn:
            return holdings.own(conn, study_instance_uid)

    receive = node.config.receive
    intakes = IntoStore(
        node.files.incoming,
        ingest,
        node.files.require_space,
        receive.maximum_dataset_megabytes * 1_000_000,
        opened,
        ended,
        receive.ae_title,
        now,
    )
    return retriever(node.config, intakes, held=held, own=own, ae_title=receive.ae_title)


def retriever(
    config: Config,
    intakes: Intakes,
    *,
    held: Held = lambda _study: frozenset(),
    own: Held = lambda _study: frozenset(),
    ae_title: str = "",
) -> Retrieve:
    """Return what fetches images into a place of their own; see `worklist.retrieve.Retrieve`."""
    from dicom_node.deliver import association, web
    from dicom_node.receive.contexts import TRANSFER_SYNTAXES
    from dicom_node.worklist.retrieve import Retrieve

    connect = partial(
        association.associated,
        calling_ae_title=calling_ae_title(config),
        maximum_pdu_size=config.deliver.maximum_pdu_size,
    )
    syntaxes = tuple(entry.uid for entry in TRANSFER_SYNTAXES)
    return Retrieve(connect, web.connected, intakes, syntaxes, held, own, ae_title)


def _archive(section: ArchiveFetched) -> Archive:
    parts = urlsplit(section.url)
    host = section.host or parts.hostname or ""
    tls = section.tls.files if section.tls.enabled else None
    return Archive(
        name=section.name,
        ae_title=section.ae_title or "",
        host=host,
        port=section.port or parts.port or (80 if tls is None else 443),
        security=ClientSecurity(
            tls,
            section.tls.server_name or host,
            section.username,
            section.passcode_file,
            section.token_file,
        ),
        how=section.how,
        url=section.url,
        images_per_minute=section.images_per_minute,
        hours=tuple(Window.parse(text) for text in section.hours),
        studies_at_a_time=section.studies_at_a_time,
        timeout=section.timeout,
    )
