"""The C-STORE and C-ECHO SCP: starts, rejects whom it must, hands objects on, stops without losing one.

Owns the set of open connections. Knows nothing of the store or the database; what it needs is given in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage

from dicom_node.config import Receive
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.types import Ingested, Received
from dicom_node.receive import guard
from dicom_node.receive.association import AssociationFacts, Link
from dicom_node.receive.contexts import is_storage, supported_contexts
from dicom_node.receive.handlers import StoreHandler, check_command, response
from dicom_node.receive.listener import Listener, StagingProvider, close_connection
from dicom_node.receive.staging import Command, StagedDataSet
from dicom_node.receive.status import PROCESSING_FAILURE, Answer

__all__ = ["AssociationFacts", "Scp"]

log = logging.getLogger(__name__)

# pynetdicom's own handlers would format every message for its log, data sets included.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)

_NEGOTIATION_TIMEOUT = 30.0
_AFTER_ABORT = 5.0


class Scp:
    """One listening port.

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
    clock
        Returns the current moment, timezone-aware.
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
    ) -> None:
        self.network_timeout = config.network_timeout
        self.maximum_pdu_size = config.maximum_pdu_size
        # Connections that say nothing hold no place of an association; they end after the negotiation timeout.
        self.maximum_connections = 2 * config.max_associations + 32
        self._config = config
        self._incoming = incoming
        self._admit_disk = admit
        self._opened = opened
        self._ended = ended
        self._clock = clock
        self._store = StoreHandler(ingest, config.on_conflict, clock)
        self._links: dict[Association, Link] = {}
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._listener: Listener | None = None

    def start(self) -> tuple[str, int]:
        """Listen, and return the address bound; port 0 in the configuration takes a free one.

        Raises
        ------
        OutOfResourcesError
            If the address cannot be bound.
        """
        entity = ApplicationEntity(self._config.ae_title)
        entity.maximum_pdu_size = self.maximum_pdu_size
        entity.maximum_associations = self.maximum_connections  # the limit that peers meet is the guard's
        entity.network_timeout = self.network_timeout
        entity.acse_timeout = min(self.network_timeout, _NEGOTIATION_TIMEOUT)
        address = (self._config.host, self._config.port)
        try:
            listener = Listener(
                entity,
                address,
                supported_contexts(),
                [
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_ESTABLISHED, self._on_established),
                    (evt.EVT_C_STORE, self._on_store),
                ],
                self,
            )
        except OSError as error:
            raise OutOfResourcesError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; "
                "set receive.host and receive.port to an address that is free"
            ) from error
        self._stopping = False
        threading.Thread(target=listener.serve_forever, args=(0.1,), name="scp", daemon=True).start()
        self._listener = listener
        return self.address

    def stop(self, drain_seconds: float = 30.0) -> None:
        """Free the port, let objects that are arriving be stored and answered, then end every association.

        Parameters
        ----------
        drain_seconds
            How long to wait for them. An object begun later is refused with 0xA700.
        """
        if self._listener is None:
            return
        self._stopping = True
        self._listener.close()
        self._listener = None
        deadline = time.monotonic() + drain_seconds
        while self._end_idle() and time.monotonic() < deadline:
            with self._changed:
                self._changed.wait(0.05)
        for association in self._negotiated():
            if association.is_established:
                association.abort()
        with self._changed:
            self._changed.wait_for(lambda: not self._negotiated(), timeout=_AFTER_ABORT)
        if left := self._negotiated():
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
        """Host and port that it listens on now."""
        if self._listener is None:
            raise OutOfResourcesError("the SCP is not listening; start it first")
        host, port = self._listener.server_address[:2]
        return str(host), int(port)

    def _negotiated(self) -> list[Association]:
        with self._changed:
            return [association for association, link in self._links.items() if link.facts is not None]

    def _end_idle(self) -> bool:
        """End what does not store now; return whether anything is left."""
        with self._changed:
            silent = [association for association, link in self._links.items() if link.facts is None]
        for association in silent:
            close_connection(association)
        negotiated = self._negotiated()
        for association in negotiated:
            if association.is_established and not _busy(association):
                association.abort()
        return bool(negotiated)

    # What the listener asks and tells.

    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._links)

    def connected(self, association: Association) -> None:
        """Note a connection."""
        with self._changed:
            self._links[association] = Link(uuid4().hex)

    def stage(self, association: Association, message: DIMSEMessage) -> StagedDataSet:
        """Return the buffer for the data set of a message that begins."""
        link = self._links[association]

        def check() -> Command:
            accepted = {
                context.context_id: (str(context.abstract_syntax), str(context.transfer_syntax[0]))
                for context in association.accepted_contexts
            }
            return check_command(message, accepted)

        return StagedDataSet(
            self._incoming / link.next_name(), check, self._admit, link.facts.calling if link.facts else ""
        )

    def settled(self) -> None:
        """Wake whoever waits for associations to become idle."""
        with self._changed:
            self._changed.notify_all()

    def gone(self, association: Association) -> None:
        """Report an association's end and forget it."""
        link = self._links[association]
        try:
            link.report_ended(self._ended, released=association.is_released)
        finally:
            with self._changed:
                del self._links[association]
                self._changed.notify_all()

    def _admit(self) -> None:
        if self._stopping:
            raise OutOfResourcesError("the node is stopping; send again later")
        self._admit_disk()

    # What happens on an association, in its own thread.

    def _on_requested(self, event: evt.Event) -> None:
        association = event.assoc
        primitive = association.requestor.primitive
        request = guard.Request(
            calling=str(getattr(primitive, "calling_ae_title", "")).strip(),
            called=str(getattr(primitive, "called_ae_title", "")).strip(),
            address=association.requestor.address,
        )
        rejection = guard.check_titles(
            request,
            own_ae_title=self._config.ae_title,
            require_called=self._config.require_called_ae_title,
            peers=self._config.peers,
        )
        with self._changed:
            link = self._links[association]
            if rejection is None:
                associations = sum(other.facts is not None for other in self._links.values())
                rejection = guard.check_limit(
                    associations, self._config.max_associations, stopping=self._stopping
                )
            if rejection is None:
                link.facts = AssociationFacts(
                    link.id, request.calling, request.called, request.address, self._clock()
                )
                return
        log.warning(
            "association rejected",
            extra={"association_id": link.id, "peer_address": request.address, "reason": rejection.why},
        )
        association.acse.send_reject(rejection.result, rejection.source, rejection.reason)
        association.kill()

    def _on_established(self, event: evt.Event) -> None:
        if any(is_storage(str(context.abstract_syntax)) for context in event.assoc.accepted_contexts):
            self._links[event.assoc].report_opened(self._opened)

    def _on_store(self, event: evt.Event) -> Dataset:
        association = event.assoc
        link = self._links[association]
        staged = getattr(event.request, "DataSet", None)
        if link.facts is None or not isinstance(staged, StagedDataSet):
            return response(Answer(PROCESSING_FAILURE, "fault of this node"))
        link.report_opened(self._opened)
        try:
            return response(self._store(staged, link.facts))
        finally:
            if isinstance(association.dimse, StagingProvider):
                association.dimse.forget(staged)


def _busy(association: Association) -> bool:
    return isinstance(association.dimse, StagingProvider) and association.dimse.busy
