"""What the Conformance Statement tells of the listening side, made from what the listening side goes by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from dicom_node.config import Peer, Receive
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.sop_classes import (
    IAN,
    MPPS,
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    VERIFICATION,
    Entry,
)
from dicom_node.domain.statement import Table
from dicom_node.receive import commitment, contexts, guard, status

_RESULTS = {1: "permanent", 2: "transient"}
_SOURCES = {1: "service user", 2: "service provider (ACSE)", 3: "service provider (presentation)"}
_REASONS = {
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
"""PS3.8 table 9-21."""


def sop_classes(config: Receive) -> Table:
    """Return the SOP classes that are accepted."""
    return Table(("SOP class", "UID"), tuple((entry.name, entry.uid) for entry in _accepted(config)))


def transfer_syntaxes() -> Table:
    """Return the transfer syntaxes of the storage SOP classes, the preferred one first."""
    return Table(
        ("transfer syntax", "UID"), tuple((entry.name, entry.uid) for entry in contexts.TRANSFER_SYNTAXES)
    )


def association(config: Receive) -> Table:
    """Return what an association with this AE is like."""
    rows = (
        ("application context", guard.APPLICATION_CONTEXT),
        ("associations at a time", f"{config.max_associations} (configurable)"),
        ("asynchronous operations", "not supported: one outstanding operation"),
        ("implementation class UID", str(PYNETDICOM_IMPLEMENTATION_UID)),
        ("implementation version name", PYNETDICOM_IMPLEMENTATION_VERSION),
        ("maximum PDU received", f"{config.maximum_pdu_size} bytes (configurable, 4096 to 4194304)"),
    )
    return Table(("property", "value"), rows)


def rejections() -> Table:
    """Return when an association is rejected, and how: what the guard says to a request of each kind."""
    rows = []
    for when, request, open_now, stopping in _TURNED_AWAY:
        asked = {"calling": "CR1", "called": "DICOMNODE", "address": "192.0.2.1", **request}
        judged = guard.judge(guard.Request(**asked), _STRICT, guard.Open(total=open_now), stopping=stopping)
        if not isinstance(judged, guard.Rejection):
            continue
        rows.append(
            (
                f"{judged.result} {_RESULTS[judged.result]}",
                f"{judged.source} {_SOURCES[judged.source]}",
                f"{judged.reason} {_REASONS[judged.source, judged.reason]}",
                when,
            )
        )
    return Table(("result", "source", "reason", "when"), tuple(rows))


_STRICT = Receive(peers=(Peer(ae_title="CR1"),), require_called_ae_title=True, max_associations=1)
_TURNED_AWAY: tuple[tuple[str, dict[str, Any], int, bool], ...] = (
    ("it is another than the one above", {"application_context": "1.2.3"}, 0, False),
    (
        (
            "`[receive] peers` is set and the title, or its address, is not among them; or the address is not in "
            "`[receive] allow_addresses`"
        ),
        {"calling": "OTHER"},
        0,
        False,
    ),
    (
        "`[receive] require_called_ae_title` is set and the title is another",
        {"called": "OTHER"},
        0,
        False,
    ),
    ("bit 0 is not set", {"protocol_version": 2}, 0, False),
    ("the node is stopping", {}, 0, True),
    ("as many associations as allowed are open: in all, of this peer, or from this address", {}, 1, False),
)


def statuses() -> Table:
    """Return the statuses that answer a C-STORE."""
    return _statuses("meaning", status.MEANINGS)


def action_statuses() -> Table:
    """Return the statuses that answer a request for storage commitment."""
    return _statuses("N-ACTION", commitment.ACTION_MEANINGS)


def event_statuses() -> Table:
    """Return the statuses that answer a report on a storage commitment."""
    return _statuses("N-EVENT-REPORT", commitment.EVENT_MEANINGS)


def step_statuses() -> Table:
    """Return the statuses that answer requests about procedure steps."""
    return _statuses("N-CREATE, N-GET, N-SET, N-ACTION", ups.MEANINGS)


def peers(config: Receive) -> Table:
    """Return who may associate, in this site's configuration."""
    rows = tuple(
        (
            peer.ae_title,
            ", ".join(peer.addresses) or "any",
            ", ".join(peer.sop_classes) or "all",
            str(peer.max_associations or "no limit of its own"),
            peer.tls,
        )
        for peer in config.peers
    )
    anyone = (("any", ", ".join(guard.allowed_networks(config)) or "any", "all", "no limit of its own", "any"),)
    return Table(("AE title", "addresses", "SOP classes", "associations", "TLS"), rows or anyone)


def _accepted(config: Receive) -> tuple[Entry, ...]:
    steps = (UPS_PUSH, UPS_PULL, UPS_WATCH, UPS_QUERY) if config.procedure_steps else ()
    notices = (*((MPPS,) if config.mpps else ()), *((IAN,) if config.availability else ()))
    everything = (VERIFICATION, STORAGE_COMMITMENT, *STORAGE_CLASSES, *steps, *notices)
    return tuple(entry for entry in everything if config.commitment or entry != STORAGE_COMMITMENT)


def _statuses(of: str, meanings: Mapping[int, str]) -> Table:
    rows = tuple((f"0x{code:04X}", meaning) for code, meaning in sorted(meanings.items()))
    return Table(("status", of), rows)
