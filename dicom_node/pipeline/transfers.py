"""Tells the audit trail what each association brought, once it has ended: one message for each study.

Owns the count of what is arriving, in memory: if the process is killed, what it received is in the database and in the
log, but in no message.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dicom_node.domain.audit import AssociationOpened, Audit, AuditOutcome, Party, Transferred
from dicom_node.domain.types import Ingested, Received


@dataclass
class _Brought:
    peer: Party
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    something_new: set[str] = field(default_factory=set)


class Transfers:
    """The three calls around an association's stores."""

    def __init__(self, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock
        self._open: dict[str, _Brought] = {}
        self._one = threading.Lock()

    def opened(self, association_id: str, calling: str, called: str, peer_address: str, at: datetime) -> None:
        """Note that an association may store from now on."""
        peer = Party(calling, peer_address)
        with self._one:
            self._open[association_id] = _Brought(peer)
        self._audit(AssociationOpened(at, peer, called))

    def stored(self, received: Received, study_instance_uid: str, ingested: Ingested) -> None:
        """Note an object that was taken in."""
        with self._one:
            brought = self._open.get(received.association_id)
            if brought is not None:
                classes = brought.classes.setdefault(study_instance_uid, Counter())
                classes[received.sop_class_uid] += 1
                if ingested in {Ingested.NEW, Ingested.CONFLICT}:
                    brought.something_new.add(study_instance_uid)

    def ended(self, association_id: str, how: str) -> None:
        """Tell what it brought; `how` is "released" or "aborted"."""
        with self._one:
            brought = self._open.pop(association_id, None)
        if brought is None:
            return
        whole = how == "released"
        for study, classes in brought.classes.items():
            self._audit(
                Transferred(
                    at=self._clock(),
                    study_instance_uid=study,
                    sop_classes=dict(classes),
                    peer=brought.peer,
                    already_held=study not in brought.something_new,
                    outcome=AuditOutcome.SUCCESS if whole else AuditOutcome.MINOR_FAILURE,
                    description="" if whole else "the association was aborted; what is counted was stored",
                )
            )
