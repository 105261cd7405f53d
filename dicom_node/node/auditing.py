"""Builds the audit trail: its file, who reports, and the connection to the syslog server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from dicom_node.config import Config
from dicom_node.domain import audit
from dicom_node.domain.audit import ApplicationActivity, Audit
from dicom_node.observe.audit import Forwarder, Trail
from dicom_node.observe.audit_file import AuditFile
from dicom_node.observe.audit_message import AuditSource
from dicom_node.observe.audit_syslog import SyslogSender


def audit_file(config: Config) -> AuditFile:
    """Return the trail's file, whether it is written or not."""
    section = config.audit
    path = section.path or config.store.root / "audit" / "audit.jsonl"
    return AuditFile(
        path, section.max_megabytes * 1_000_000, section.keep, forwarding=bool(section.syslog.host)
    )


def trail(config: Config, patient_of: Callable[[str], str] | None = None) -> Audit:
    """Return what takes note of events, as the configuration wants it.

    Parameters
    ----------
    patient_of
        Returns the Patient ID of a study; asked only where ``[audit] patient_id`` is set.
    """
    section = config.audit
    if not section.enabled:
        return audit.unheard
    host = socket.gethostname()
    source = AuditSource(
        source_id=section.source_id or config.receive.ae_title,
        site_id=section.site_id,
        ae_title=config.receive.ae_title,
        process=f"{host}:{os.getpid()}",
        host=host,
    )
    accepted = section.associations == "all"
    if patient_of is None or not section.patient_id:
        return Trail(audit_file(config), source, accepted=accepted)
    return Trail(audit_file(config), source, accepted=accepted, patient_of=patient_of)


@contextmanager
def audited_run(config: Config, tell: Audit, clock: Callable[[], datetime]) -> Iterator[None]:
    """Note start and stop of the node around the block, and send the trail on meanwhile.

    Raises
    ------
    ConfigError, CertificateError
        If the syslog server's files cannot be used.
    """
    stop = threading.Event()
    threads = []
    if config.audit.enabled and config.audit.syslog.host:
        forwarder = Forwarder(audit_file(config), sender(config).send, clock)
        threads.append(threading.Thread(target=forwarder.run, args=(stop,), name="audit"))
    tell(ApplicationActivity(clock(), started=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        tell(ApplicationActivity(clock(), started=False))
        stop.set()
        for thread in threads:
            thread.join()


def sender(config: Config) -> SyslogSender:
    """Return the connection to the syslog server.

    Raises
    ------
    CertificateError
        If its TLS files cannot be used.
    """
    from dicom_node.security.contexts import client_context

    syslog = config.audit.syslog
    context = None
    if syslog.transport == "tls":
        context = client_context(syslog.files)
    return SyslogSender((syslog.host, syslog.port), syslog.timeout, context)
