"""Looks at certificates, keys and secrets of this node: for `check`, and day by day while the node runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from dicom_node.config import (
    ArchiveFetched,
    Config,
    DestinationSection,
    DicomDestination,
    StowDestination,
    UpsSourceSection,
)
from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import TlsFiles
from dicom_node.security import certificates, passcodes
from dicom_node.security.certificates import Seen
from dicom_node.security.secret_files import open_to_others, read_secret

log = logging.getLogger(__name__)

_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def look(config: Config, now: datetime) -> list[tuple[str, Seen]]:
    """Return what is to be said of every certificate, key, users file and passcode that is configured, by name."""
    return list(_seen(config, now))


def watch(config: Config, clock: Callable[[], datetime]) -> None:
    """Log what of it is wrong or soon will be; meant to be called at start and once a day."""
    for name, seen in look(config, clock()):
        fields = {"what": name, "reason": seen.detail}
        if not seen.ok:
            log.error("a certificate or secret cannot be used", extra=fields)
        elif seen.warning:
            log.warning("a certificate or secret needs attention", extra=fields)


def _seen(config: Config, now: datetime) -> Iterator[tuple[str, Seen]]:
    for name, files in _sides(config):
        for seen in certificates.look(files, now):
            yield name, seen
    if config.web.enabled and not config.web.secure and config.web.host not in _THIS_MACHINE:
        yield "web", Seen(True, True, "passcodes and pages cross the network in the clear; set web.tls.enabled")
    if config.web.oidc.client_secret_file is not None:
        yield "web.oidc client secret", _passcode(config.web.oidc.client_secret_file, clear=False)
    if config.receive.identity.users_file is not None:
        yield "users", _users(config.receive.identity.users_file)
    for peer in (*config.destinations, *config.archives, *config.ups_sources):
        for what, path in _secrets(peer):
            yield f"{what} for {peer.name}", _passcode(path, clear=not peer.tls.enabled)


def _secrets(peer: DestinationSection | ArchiveFetched | UpsSourceSection) -> Iterator[tuple[str, Path]]:
    with_passcode = DicomDestination | StowDestination | ArchiveFetched | UpsSourceSection
    if isinstance(peer, with_passcode) and peer.passcode_file is not None:
        yield "passcode", peer.passcode_file
    if isinstance(peer, StowDestination | ArchiveFetched) and peer.token_file is not None:
        yield "token", peer.token_file


def _sides(config: Config) -> Iterator[tuple[str, TlsFiles]]:
    if config.receive.tls.enabled:
        yield "receive.tls", config.receive.tls.files
    if config.web.tls.enabled:
        yield "web.tls", config.web.tls.files
    for peer in (*config.destinations, *config.archives, *config.ups_sources, *config.modality_worklists):
        if peer.tls.enabled:
            yield f"tls of {peer.name}", peer.tls.files
    for calling in config.receive.peers:
        if calling.connect_tls.enabled:
            yield f"tls of {calling.ae_title}", calling.connect_tls.files
    syslog = config.audit.syslog
    if config.audit.enabled and syslog.host and syslog.transport == "tls":
        yield "tls of audit syslog", syslog.files


def _users(path: Path) -> Seen:
    try:
        users = passcodes.read_users(path)
        passcodes.decoy(path, users)
    except CertificateError as error:
        return Seen(False, False, str(error))
    if open_to_others(path):
        return Seen(True, True, f"{path} may be read by every user of this machine; chmod 0600 it, or 0640")
    if not users:
        return Seen(True, True, f"{path} holds no user; add one with `dicom-node user add`")
    return Seen(True, False, f"{path} holds {len(users)} users")


def _passcode(path: Path, *, clear: bool) -> Seen:
    try:
        read_secret(path)
    except CertificateError as error:
        return Seen(False, False, str(error))
    if open_to_others(path):
        return Seen(True, True, f"{path} may be read by every user of this machine; chmod 0600 it, or 0640")
    if clear:
        return Seen(True, True, "it crosses the network in the clear; set tls.enabled")
    return Seen(True, False, f"{path} can be read")
