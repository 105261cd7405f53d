"""Looks at everything a start depends on, and tells all that is wrong instead of stopping at the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.domain import private
from dicom_node.domain.errors import BankError, NodeError
from dicom_node.domain.types import Destination
from dicom_node.pipeline.health import Health
from dicom_node.score.bank_store import BankStore
from dicom_node.security.certificates import Seen


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is as it should be, and what was seen."""

    name: str
    ok: bool
    detail: str


def banks(root: Path, kinds: Sequence[str] = ("deep-knn",)) -> list[Finding]:
    """Verify the active banks' hashes; a kind without an active bank is a fault.

    Parameters
    ----------
    kinds
        That score an image; without a bank of the first every study would go unanalysed.
    """
    store = BankStore(root)
    try:
        active = store.active()
    except BankError as error:
        return [Finding("bank", False, str(error))]
    if not active:
        return [
            Finding("bank", False, f"none is active in {root}; every study would be answered 'not analysed'")
        ]
    findings = []
    missing = list(kinds)
    for name in active:
        try:
            findings.append(Finding(f"bank {name}", True, f"every hash matches; {store.verify(name)}"))
            missing = [kind for kind in missing if kind != store.manifest(name).kind]
        except BankError as error:
            findings.append(Finding(f"bank {name}", False, str(error)))
    if all(finding.ok for finding in findings):
        told = "[score] method asks for one; build one with `dicom-node bank build --method"
        findings += [
            Finding(f"bank of kind {kind}", False, f"none is active; {told} {kind}`") for kind in missing
        ]
    return findings


def store(root: Path, require_space: Callable[[], None]) -> Finding:
    """Write, sync and remove a file in the store, and compare the free space with the reserve."""
    probe = root / "incoming" / f"check-{os.getpid()}"
    try:
        require_space()
        with probe.open("wb") as file:
            file.write(b"\0")
            os.fsync(file.fileno())
    except NodeError as error:
        return Finding("store", False, str(error))
    except OSError as error:
        return Finding("store", False, f"{root} cannot be written: {error}")
    finally:
        with contextlib.suppress(OSError):  # told above where it matters
            probe.unlink()
    return Finding("store", True, f"{root} can be written and synced")


def queue(health: Health) -> Finding:
    """Tell what waits and what has failed; neither keeps the node from starting."""
    waiting = sum(n for (_, state), n in health.counts.items() if state in {"SCHEDULED", "IN_PROGRESS"})
    failed = sum(n for (_, state), n in health.counts.items() if state == "FAILED")
    seconds = health.oldest_due_seconds
    since = "" if seconds is None else f", the oldest for {seconds:.0f} s"
    told = f"{waiting} items wait{since}; {failed} failed and wait for a person"
    return Finding("queue", True, f"{told}; {health.free_bytes / 1e9:.1f} GB are free in the store")


def security(looked_at: Iterable[tuple[str, Seen]]) -> list[Finding]:
    """Tell what was seen of certificates and secrets; one that only needs attention is no fault."""
    return [
        Finding(name, seen.ok, f"warning: {seen.detail}" if seen.warning else seen.detail)
        for name, seen in looked_at
    ]


def destinations(configured: Iterable[Destination], echo: Callable[[Destination], None]) -> list[Finding]:
    """Ask each destination whether it is there; without one, reports would stay in the node."""
    findings = [_asked("destination", destination, echo) for destination in configured]
    return findings or [
        Finding(
            "destinations", False, "none is configured; reports would stay in the node. Add [[destinations]]"
        )
    ]


def archives(configured: Iterable[Destination], echo: Callable[[Destination], None]) -> list[Finding]:
    """Ask each archive that images are fetched from whether it is there."""
    return [_asked("archive", archive, echo) for archive in configured]


def worklists(configured: Iterable[Destination], echo: Callable[[Destination], None]) -> list[Finding]:
    """Ask each provider of a worklist whether it is there."""
    return [_asked("worklist", provider, echo) for provider in configured]


def _asked(what: str, peer: Destination, echo: Callable[[Destination], None]) -> Finding:
    name = f"{what} {peer.name}"
    try:
        echo(peer)
    except NodeError as error:
        return Finding(name, False, str(error))
    answers = {
        "dicom": f"{peer.ae_title} answers C-ECHO",
        "stow": f"{peer.url} answers a search (QIDO-RS)",
        "hl7": "takes a connection; HL7 has no way to ask for more",
    }
    return Finding(name, True, answers[peer.kind])


def privacy(places: Iterable[Path]) -> list[Finding]:
    """Warn of folders and files with patients in them that other users of this machine have a right on."""
    return [
        Finding(
            "privacy",
            True,
            f"warning: {place} is open to others (mode {place.stat().st_mode & 0o7777:04o}); "
            f"chmod {'0700' if place.is_dir() else '0600'} it",
        )
        for place in places
        if private.open_to_others(place)
    ]
