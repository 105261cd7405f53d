from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.config import Receive
from dicom_node.domain.types import Ingested, Received
from dicom_node.receive.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicom_node.receive.scp import AssociationFacts, Scp
from tests.peers import CR

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Keeper:
    """Stands where the pipeline stands: takes files over, remembers what it was told."""

    def __init__(self, folder: Path) -> None:
        self.incoming = folder / "incoming"
        self.kept = folder / "kept"
        self.incoming.mkdir()
        self.kept.mkdir()
        self.received: list[Received] = []
        self.opened: list[AssociationFacts] = []
        self.ended: list[tuple[str, str]] = []
        self.order: list[str] = []
        self.heard = threading.Condition()
        self.before: Callable[[Received], None] = lambda _received: None
        self.admit: Callable[[], None] = lambda: None
        self.on_open: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.answer = Ingested.NEW

    def ingest(self, received: Received) -> Ingested:
        self.before(received)
        received.path.rename(self.kept / received.path.name)
        self.received.append(received)
        self._hear("store")
        return self.answer

    def note_opened(self, facts: AssociationFacts) -> None:
        self.on_open()
        self.opened.append(facts)
        self._hear("opened")

    def note_ended(self, association_id: str, how: str) -> None:
        self.on_end()
        self.ended.append((association_id, how))
        self._hear("ended")

    def _hear(self, what: str) -> None:
        with self.heard:
            self.order.append(what)
            self.heard.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        with self.heard:
            assert self.heard.wait_for(condition, timeout), f"never happened; heard {self.order}"

    def content(self, received: Received) -> bytes:
        return (self.kept / received.path.name).read_bytes()


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path)


@pytest.fixture
def serve(keeper: Keeper) -> Iterator[Callable[..., Scp]]:
    """Start an SCP with these settings of the receive section; every one is stopped at the end."""
    started: list[Scp] = []

    def start(**settings: object) -> Scp:
        scp = Scp(
            Receive.model_validate({"port": 0, "network_timeout": 10.0, **settings}),
            incoming=keeper.incoming,
            ingest=keeper.ingest,
            admit=lambda: keeper.admit(),
            opened=keeper.note_opened,
            ended=keeper.note_ended,
            clock=lambda: MOMENT,
        )
        scp.start()
        started.append(scp)
        return scp

    yield start
    for scp in started:
        scp.stop(drain_seconds=1.0)


@pytest.fixture
def associate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Association]]:
    """Associate as a modality would that sends files byte for byte."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    made: list[Association] = []

    def request(
        scp: Scp,
        *,
        calling: str = "MODALITY",
        called: str = "DICOMNODE",
        classes: tuple[str, ...] = tuple(storage.uid for storage in STORAGE_CLASSES[:4]),
        syntaxes: tuple[str, ...] = tuple(syntax.uid for syntax in TRANSFER_SYNTAXES),
        pdu: int = 16382,
    ) -> Association:
        entity = ApplicationEntity(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(VERIFICATION.uid)
        for sop_class in classes:
            for syntax in syntaxes:
                entity.add_requested_context(sop_class, syntax)
        host, port = scp.address
        association = entity.associate(host, port, ae_title=called, max_pdu=pdu)
        made.append(association)
        return association

    yield request
    for association in made:
        if association.is_established:
            association.release()


def rejection(association: Association) -> tuple[int | None, int | None, int | None]:
    """Return the result, source and reason of the rejection that answered this request."""
    # pynetdicom may have closed the connection before its caller looks, who then takes it for one that
    # was never made: the answer waits in its queue.
    answer = association.acceptor.primitive or association.dul.peek_next_pdu()
    assert isinstance(answer, A_ASSOCIATE), f"not rejected, but: {answer}"
    return (answer.result, answer.result_source, answer.diagnostic)


def _command(association: Association, sop_class: str, uid: str, data_set: bytes | None) -> tuple[C_STORE, int]:
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == CR)
    assert context.context_id is not None
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 0
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = uid
    request.DataSet = None if data_set is None else BytesIO(data_set)
    return request, context.context_id


@pytest.fixture
def send_part() -> Callable[[Association, bytes, int], None]:
    """Send a C-STORE command and the first PDUs of its data set, never the last."""

    def send(association: Association, data_set: bytes, pdus: int) -> None:
        request, context_id = _command(association, CR, "1.2.3.4", data_set)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        for piece in islice(message.encode_msg(context_id, 4096), 1 + pdus):
            association.dul.send_pdu(piece)

    return send


@pytest.fixture
def send_command() -> Callable[..., C_STORE]:
    """Send any C-STORE command on the CR context, as no proper library would; returns the response."""

    def send(association: Association, sop_class: str, data_set: bytes | None, uid: str = "1.2.3.4") -> C_STORE:
        request, context_id = _command(association, sop_class, uid, data_set)
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, context_id)
        _, response = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return response

    return send
