"""The SCP: starts, rejects whom it must, hands objects on, stops without losing one.

Owns the set of open connections. Knows nothing of the store or the database; what it needs is given in.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.events import EventHandlerType

from dicom_node.config import Receive
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.types import Ingested, Received
from dicom_node.receive import guard
from dicom_node.receive.association import AssociationFacts, Link
from dicom_node.receive.contexts import is_storage
from dicom_node.receive.handlers import StoreHandler, check_command, response
from dicom_node.receive.identity import Identified, IdentityCheck
from dicom_node.receive.messages import messages_of
from dicom_node.receive.ports import Ports
from dicom_node.receive.refusals import RefusalLog
from dicom_node.receive.services import Service, joined
from dicom_node.receive.staging import StagedDataSet
from dicom_node.receive.status import PROCESSING_FAILURE, Answer
from dicom_node.receive.transport import check_transport, transport_of

__all__ = ["AssociationFacts", "Scp"]

log = logging.getLogger(__name__)

# pynetdicom's own handlers would format every message for its log, data sets included.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)

_AFTER_ABORT = 5.0
_UNCHECKED = guard.Rejection(
    2, 3, 1, "the user identity could not be checked, by a fault of this node; see its log"
)


class Scp:
    """One listening port, or two: in the clear and for TLS.

    Parameters
    ----------
    config
        The `receive` section.
    incoming
        Existing folder, on the store's file system, that data sets are written to while they arrive.
    ingest
        Takes custody of a received file. Once it returns the object must be safe: Success is answered.
    admit
        Raises OutOfResourcesError where the disk is too full; asked before and while a data set arrives.
    opened
        Told of each association that may store, before its first store.
    ended
        Told ``(association_id, "released" | "aborted")`` once for each association that `opened` was told of,
        after its last store.
    rejected
        Told of each association that was rejected, and why; not of more than the log is told.
    clock
        Returns the current moment, timezone-aware.
    commitment, services
        Answer for storage commitment and further services; without one, its SOP classes are not offered.

    Raises
    ------
    CertificateError
        If there is a users file that cannot be used.
    """

    def __init__(
        self,
        config: Receive,
        *,
        incoming: Path,
        ingest: Callable[[Received], Ingested],
        admit: Callable[[], None],
        opened: Callable[[AssociationFacts], None],
        ended: Callable[[str, str], None],
        clock: Callable[[], datetime],
        rejected: Callable[[AssociationFacts, str], None] = lambda _facts, _why: None,
        commitment: Service | None = None,
        services: Sequence[Service] = (),
    ) -> None:
        config = config if commitment else config.model_copy(update={"commitment": False})
        self._rejected = rejected
        self.network_timeout = config.network_timeout
        self.idle_timeout = config.idle_timeout
        self.association_timeout = config.association_timeout
        self.minimum_bytes_per_second = config.minimum_bytes_per_second
        self.maximum_pdu_size = config.maximum_pdu_size
        self.maximum_connections_per_address = config.max_connections_per_address
        # Connections that say nothing hold no place of an association; the oldest makes way for a new one.
        self.maximum_connections = 2 * config.max_associations + 32
        self._config = config
        self._incoming = incoming
        self._admit_disk = admit
        self._opened = opened
        self._ended = ended
        self._clock = clock
        self._store = StoreHandler(ingest, config.on_conflict, clock)
        self._allowed = guard.allowed_networks(config)
        self._refusals = RefusalLog(time.monotonic)
        self._links: dict[str, Link] = {}
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        handlers: list[EventHandlerType] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_C_STORE, self._on_store),
            *joined([*([commitment] if commitment else ()), *services]),
        ]
        self._services = frozenset(uid for service in services for uid in service.sop_classes)
        self._ports = Ports(config, handlers, self)
        self._identify = IdentityCheck(config.identity, time.monotonic)

    def start(self) -> tuple[str, int]:
        """Listen, and return the address bound; port 0 in the configuration takes a free one.

        Raises
        ------
        OutOfResourcesError
            If an address cannot be bound.
        CertificateError
            If the files of `receive.tls` cannot be used.
        """
        self._stopping = False
        self._ports.open()
        return self.address

    def stop(self, drain_seconds: float = 30.0) -> None:
        """Free the port, let objects that are arriving be stored and answered, then end every association.

        Parameters
        ----------
        drain_seconds
            How long to wait for them. An object begun later is refused with 0xA700.
        """
        self._stopping = True
        if not self._ports.close():
            return
        deadline = time.monotonic() + drain_seconds
        while self._abort(busy=False) and time.monotonic() < deadline:
            with self._changed:
                self._changed.wait(0.05)
        self._abort(busy=True)
        with self._changed:
            self._changed.wait_for(lambda: not self._links, timeout=_AFTER_ABORT)
        self._refusals.close()
        if left := self._open():
            log.warning("associations are still storing at stop", extra={"count": len(left)})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on now: the plain port, if there is one."""
        return self._ports.addresses[0]

    @property
    def tls_address(self) -> tuple[str, int]:
        """Host and port that it listens on for TLS."""
        return self._ports.addresses[-1]

    def _open(self) -> list[Link]:
        with self._changed:
            return list(self._links.values())

    def _abort(self, *, busy: bool) -> bool:
        """Abort associations, those that store now too if `busy`; return whether any is open."""
        links = self._open()
        for link in links:
            association = link.association
            if (
                association is not None
                and association.is_established
                and (busy or not messages_of(association).busy)
            ):
                association.abort()
        return bool(links)

    # What the listener asks and tells.

    def connections(self) -> int:
        """Return how many connections are open, associations among them."""
        return len(self._links) + self._ports.waiting

    def connections_from(self, address: str) -> int:
        """Return how many associations are open from an address."""
        return sum(link.facts.peer_address == address for link in self._open())

    def check_address(self, address: str) -> guard.Rejection | None:
        """Return why nobody from there is listened to."""
        return guard.check_address(address, self._allowed)

    def judge(self, request: guard.Request, connection: socket.socket) -> Link | guard.Rejection:
        """Return why a request is rejected, or the place that it takes."""
        with self._changed:
            titles = Counter(link.facts.calling for link in self._links.values())
            associations = guard.Open(len(self._links), titles)
            stopping, services = self._stopping, self._services
            verdict = guard.judge(request, self._config, associations, stopping=stopping, services=services)
            if isinstance(verdict, guard.Rejection):
                return verdict
            if rejection := check_transport(transport_of(connection), verdict.peer):
                return rejection
            link = Link(self._facts(request), verdict)
            self._links[link.id] = link
            return link

    def _facts(self, request: guard.Request) -> AssociationFacts:
        return AssociationFacts(uuid4().hex, request.calling, request.called, request.address, self._clock())

    def rejected(self, request: guard.Request, why: str) -> None:
        """Log a rejection and tell whoever wants to know."""
        if self._refusals.note("association rejected", request.address, why):
            self._rejected(self._facts(request), why)

    def refused(self, message: str, address: str, reason: str) -> None:
        """Log what was ended on this side, and why."""
        self._refusals.note(message, address, reason)

    def tick(self) -> None:
        """Tell what the log left out."""
        self._refusals.tick()

    def stage(self, link: Link, message: DIMSEMessage) -> StagedDataSet:
        """Return the buffer for the data set of a message that begins."""
        check = partial(check_command, message, link.accepted)
        largest = self._config.maximum_dataset_megabytes * 1_000_000
        return StagedDataSet(self._incoming / link.next_name(), check, self._admit, link.facts.calling, largest)

    def settled(self) -> None:
        """Wake whoever waits for associations to become idle."""
        with self._changed:
            self._changed.notify_all()

    def gone(self, link: Link) -> None:
        """Report an association's end and forget it."""
        released = link.association is not None and link.association.is_released
        try:
            link.report_ended(self._ended, released=released)
        finally:
            with self._changed:
                del self._links[link.id]
                self._changed.notify_all()

    def _admit(self) -> None:
        if self._stopping:
            raise OutOfResourcesError("the node is stopping; send again later")
        self._admit_disk()

    # What happens on an association, in its own thread.

    def _on_requested(self, event: evt.Event) -> None:
        # Here, not at the gate: a hash takes its time, and the gate is one thread for all.
        association = event.assoc
        facts = messages_of(association).link.facts
        identified: Identified | guard.Rejection = _UNCHECKED
        try:
            identified = self._identify(association.requestor.user_identity, facts.peer_address)
        finally:  # pynetdicom logs what a handler raises, and would let the peer in
            if isinstance(identified, guard.Rejection):
                request = guard.Request(facts.calling, facts.called, facts.peer_address)
                self.rejected(request, identified.why)
                association.acse.send_reject(identified.result, identified.source, identified.reason)
                association.kill()
        if isinstance(identified, Identified) and identified.answer is not None:
            association.acceptor.add_negotiation_item(identified.answer)

    def _on_established(self, event: evt.Event) -> None:
        if any(is_storage(str(context.abstract_syntax)) for context in event.assoc.accepted_contexts):
            messages_of(event.assoc).link.report_opened(self._opened)

    def _on_store(self, event: evt.Event) -> Dataset:
        messages, staged = messages_of(event.assoc), getattr(event.request, "DataSet", None)
        if not isinstance(staged, StagedDataSet):
            return response(Answer(PROCESSING_FAILURE, "fault of this node"))
        messages.link.report_opened(self._opened)
        try:
            return response(self._store(staged, messages.link.facts))
        finally:
            messages.forget(staged)
