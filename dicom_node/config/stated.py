"""What the Conformance Statement tells of the configuration. Pure. Owns which keys stand in it; tells no secret."""

from __future__ import annotations

from typing import Any

from dicom_node.config import Config, DicomDestination, StowDestination
from dicom_node.domain.statement import Table

_STATED = (
    ("AE title, called", "receive.ae_title"),
    ("AE title, calling", "deliver.calling_ae_title"),
    ("address", "receive.host"),
    ("port", "receive.port"),
    ("port for TLS", "receive.tls.port"),
    ("TLS as acceptor", "receive.tls.enabled"),
    ("called AE title must be this one", "receive.require_called_ae_title"),
    ("associations at a time", "receive.max_associations"),
    ("connections from one address", "receive.max_connections_per_address"),
    ("maximum PDU received", "receive.maximum_pdu_size"),
    ("maximum PDU received, as user", "deliver.maximum_pdu_size"),
    ("association request, seconds", "receive.association_timeout"),
    ("network timeout, seconds", "receive.network_timeout"),
    ("idle timeout, seconds", "receive.idle_timeout"),
    ("slowest message, bytes a second", "receive.minimum_bytes_per_second"),
    ("largest data set, megabytes", "receive.maximum_dataset_megabytes"),
    ("storage commitment as provider", "receive.commitment"),
    ("known peers", "receive.peers"),
    ("C-ECHO from unknown peers", "receive.echo_open"),
    ("answer to a duplicate with other content", "receive.on_conflict"),
    ("quiet time, seconds", "gather.quiet_seconds"),
    ("days that images are kept", "store.retention_days"),
    ("answer awaited, seconds", "deliver.timeout"),
    ("confirmation awaited, seconds", "deliver.confirm_seconds"),
    ("language of the report beside English", "report.language"),
    ("destinations", "destinations"),
    ("archives that are fetched from", "archives"),
)
_NONE = {
    "deliver.calling_ae_title": "as called",
    "receive.peers": "anyone",
    "destinations": "none",
    "archives": "none",
}


def parameters(config: Config) -> Table:
    """Return the parameters with their defaults, and with what they are here where that is a site's configuration."""
    default = Config()
    rows = [(what, f"`{key}`", _told(default, key), _told(config, key)) for what, key in _STATED]
    if config == default:
        return Table(("parameter", "key", "default"), tuple(row[:3] for row in rows))
    return Table(("parameter", "key", "default", "here"), tuple(rows))


def value(config: Config, key: str) -> str:
    """Return the value of a key such as ``receive.port`` as a person writes it.

    Raises
    ------
    AttributeError
        If there is no such key.
    """
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return f"{found:g}" if isinstance(found, float) else str(found)


def destinations(config: Config) -> Table:
    """Return where results are sent in this site's configuration; files, users and tokens are not told."""
    rows = []
    for one in config.destinations:
        classes = objects = confirm = "-"
        where = f"{one.host}:{one.port}" if not isinstance(one, StowDestination) else one.url
        if isinstance(one, DicomDestination):
            where = f"{one.ae_title} at {where}"
        if isinstance(one, DicomDestination | StowDestination):
            classes, confirm = ", ".join(one.report_classes), one.confirm
            objects = ", ".join(one.objects) or "none"
        rows.append(
            (
                one.name,
                one.kind,
                where,
                "yes" if one.tls.enabled else "no",
                classes,
                objects,
                confirm,
                str(one.max_associations),
                ", ".join(one.schedule) or "always",
            )
        )
    columns = (
        "name",
        "kind",
        "reached at",
        "TLS",
        "report classes",
        "objects",
        "confirmed by",
        "associations",
        "sent to",
    )
    return Table(columns, tuple(rows) or (("none", *"-" * (len(columns) - 1)),))


def _told(config: Config, key: str) -> str:
    found: Any = {"receive.peers": config.receive.peers, "destinations": config.destinations}.get(key)
    if found:
        return f"{len(found)}: see below"
    if key == "archives" and config.archives:
        return ", ".join(f"{one.name} ({one.how})" for one in config.archives)
    told = value(config, key)
    return {"True": "yes", "False": "no", "None": _NONE.get(key, told), "()": _NONE.get(key, told)}.get(
        told, told
    )
