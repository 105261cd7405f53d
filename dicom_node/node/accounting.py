"""Tells the audit trail what people do by commands, reads it back for them, and checks that it can be kept."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from dicom_node.config import Config
from dicom_node.domain.audit import Administered, AuditLogUsed, AuditOutcome, Setting
from dicom_node.domain.errors import NodeError
from dicom_node.node.auditing import audit_file, sender, trail
from dicom_node.node.opening import now
from dicom_node.observe.audit_file import AuditFile
from dicom_node.observe.audit_reading import selected

if TYPE_CHECKING:
    from dicom_node.pipeline.readiness import Finding


def person() -> str:
    """Return who runs this command, as an audit message names a person: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def administering(
    config: Config,
    action: str,
    subject: str,
    *,
    setting: Setting = Setting.SOFTWARE,
    study_instance_uid: str = "",
) -> Iterator[None]:
    """Note what an administrator does inside the block, and whether it came out well."""
    tell = trail(config)
    told = partial(
        Administered,
        by=person(),
        setting=setting,
        action=action,
        subject=subject,
        study_instance_uid=study_instance_uid,
    )
    failed = partial(told, outcome=AuditOutcome.SERIOUS_FAILURE)
    try:
        yield
    except NodeError as error:
        tell(failed(at=now(), description=type(error).__name__))
        raise
    except SystemExit as error:
        tell(failed(at=now(), description=f"exit code {error.code}") if error.code else told(at=now()))
        raise
    tell(told(at=now()))


def read_trail(config: Config, since: datetime | None, study_instance_uid: str) -> Iterator[dict[str, Any]]:
    """Yield the trail's messages (see `audit_reading.selected`), after noting who reads them."""
    trail(config)(AuditLogUsed(now(), person()))
    return selected(audit_file(config), since, study_instance_uid)


def check_audit(config: Config) -> list[Finding]:
    """Try whether the trail can be written, who can read it, and whether the syslog server answers."""
    from dicom_node.pipeline.readiness import Finding

    if not config.audit.enabled:
        return [Finding("audit", True, "off: nothing is recorded ([audit] enabled)")]
    file = audit_file(config)
    try:
        file.probe()
    except OSError as error:
        told = (
            f"{file.path} cannot be written: {error.strerror or error}; nobody could tell later what was done"
        )
        return [Finding("audit", False, told)]
    findings = [Finding("audit", True, f"{file.path} can be written and synced")]
    if config.audit.syslog.host:
        findings.append(_check_syslog(config, file))
    return findings


def _check_syslog(config: Config, file: AuditFile) -> Finding:
    from dicom_node.pipeline.readiness import Finding

    syslog = config.audit.syslog
    where = f"{syslog.host}:{syslog.port} ({syslog.transport})"
    forwarded = file.forwarded()
    waiting = sum(1 for _ in file.lines(forwarded.position))
    told = f"{waiting} messages wait" + (
        f", the server is away since {forwarded.since}" if forwarded.fault else ""
    )
    try:
        sender(config).probe()
    except (OSError, NodeError) as error:
        why = getattr(error, "strerror", None) or error
        return Finding("audit syslog", False, f"{where}: {why}; {told}, none is lost")
    return Finding(
        "audit syslog", True, f"{where} answers; {told}" if syslog.transport == "tls" else f"{where}; {told}"
    )
