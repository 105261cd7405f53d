"""Opens what is durable: database, store, identity. Owns the clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

from dicom_node.config import REPORT_CLASSES, Config, DicomDestination, Hl7Destination, StowDestination
from dicom_node.db import migrate
from dicom_node.db.engine import Engine, open_engine, writing
from dicom_node.domain.audit import Audit, unheard
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.node.auditing import trail
from dicom_node.pipeline.patient import patient_id
from dicom_node.store import node_facts
from dicom_node.store.files import FileStore


def now() -> datetime:
    """Return the current moment: the node's only clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Node:
    """A node's durable parts, opened: the database at its newest schema, the store, the node's identity.

    `audit` takes note of what is done with studies; see `domain.audit`.
    """

    config: Config
    engine: Engine
    files: FileStore
    device_uid: str
    destinations: dict[str, Destination]
    audit: Audit = unheard


def calling_ae_title(config: Config) -> str:
    """Return the AE title that the node uses as a client."""
    return config.deliver.calling_ae_title or config.receive.ae_title


def destinations_of(config: Config) -> dict[str, Destination]:
    """Return the configured destinations by name."""
    return {section.name: _destination(section) for section in config.destinations}


def _destination(section: DicomDestination | StowDestination | Hl7Destination) -> Destination:
    tls = section.tls.files if section.tls.enabled else None
    if isinstance(section, StowDestination):
        parts = urlsplit(section.url)
        host = parts.hostname or ""
        return Destination(
            section.name,
            "",
            host,
            parts.port or (80 if tls is None else 443),
            ClientSecurity(
                tls,
                section.tls.server_name or host,
                section.username,
                section.passcode_file,
                section.token_file,
            ),
            tuple(REPORT_CLASSES[name] for name in section.report_classes),
            "none" if section.confirm == "none" else "find",
            kind="stow",
            url=section.url,
            limits=section.limits,
            route=section.route.route,
            objects=section.objects,
        )
    if isinstance(section, Hl7Destination):
        return Destination(
            section.name,
            "",
            section.host,
            section.port,
            ClientSecurity(tls, section.tls.server_name or section.host),
            confirm="none",
            kind="hl7",
            application=section.receiving_application,
            facility=section.receiving_facility,
            limits=section.limits,
            route=section.route.route,
        )
    return Destination(
        section.name,
        section.ae_title,
        section.host,
        section.port,
        ClientSecurity(tls, section.tls.server_name or section.host, section.username, section.passcode_file),
        tuple(REPORT_CLASSES[name] for name in section.report_classes),
        section.confirm,
        limits=section.limits,
        route=section.route.route,
        objects=section.objects,
    )


@contextmanager
def open_node(config: Config) -> Iterator[Node]:
    """Open database and store, bring the schema up to date, and close them at the end.

    Raises
    ------
    ConfigError, DatabaseError, OutOfResourcesError
        If one of them cannot be used.
    """
    engine = open_engine(config.db)
    try:
        migrate.upgrade(engine)
        files = FileStore(config.store.root, config.store.reserve_megabytes * 1_000_000)
        with writing(engine) as conn:
            device_uid = node_facts.node_value(conn, "device_uid", f"2.25.{uuid4().int}")
        audit = trail(config, partial(patient_id, engine, files))
        yield Node(config, engine, files, device_uid, destinations_of(config), audit)
    finally:
        engine.dispose()
