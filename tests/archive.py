"""A PACS in the test's own process that answers for what it holds: stores, commits itself, is queried; each slowly."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.ae import ApplicationEntity

from dicom_node.deliver import commitment
from dicom_node.deliver.find import STUDY_ROOT_FIND
from dicom_node.domain.commitment import CommitmentResult, Failure, Reference
from dicom_node.domain.types import Destination

_NO_SUCH_OBJECT = 0x0112


class Archive:
    """Storage, Storage Commitment (answered on the association) and Study Root C-FIND.

    Parameters
    ----------
    rng
        Decides how long each answer takes.
    slowest
        Seconds of the slowest answer.

    Attributes
    ----------
    kept
        The newest data set under each SOP Instance UID.
    digests
        SHA-256 of every data set that came under it: one where every sending was the same.
    sendings
        How many objects were sent in all.
    """

    def __init__(self, rng: random.Random, slowest: float = 0.3) -> None:
        self.kept: dict[str, Dataset] = {}
        self.digests: dict[str, set[str]] = defaultdict(set)
        self.sendings = 0
        self.asked = 0
        self._rng = rng
        self._slowest = slowest
        self._answers: dict[int, Callable[[], object]] = {}
        self._entity = ApplicationEntity("PACS")

    def __enter__(self) -> Self:
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        self._entity.add_supported_context(commitment.PUSH_MODEL)
        self._entity.add_supported_context(STUDY_ROOT_FIND)
        self._entity.maximum_associations = 64
        server = self._entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_C_FIND, self._on_find),
                (evt.EVT_N_ACTION, self._on_action),
                (evt.EVT_DIMSE_SENT, self._on_sent),
            ],
        )
        assert server is not None
        self.destination = Destination("pacs", "PACS", "127.0.0.1", int(server.server_address[1]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entity.shutdown()

    def _wait(self) -> None:
        time.sleep(self._rng.uniform(0, self._slowest))

    def _on_store(self, event: evt.Event) -> int:
        content = event.encoded_dataset(include_meta=False)
        uid = str(event.request.AffectedSOPInstanceUID)
        self._wait()
        self.sendings += 1
        self.digests[uid].add(hashlib.sha256(content).hexdigest())
        self.kept[uid] = event.dataset
        self._wait()
        return 0

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        self.asked += 1
        self._wait()
        if str(event.identifier.SOPInstanceUID) in self.kept:
            yield 0xFF00, event.identifier

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        self.asked += 1
        asked = event.action_information
        of = [
            Reference(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in asked.ReferencedSOPSequence
        ]
        held = tuple(r for r in of if r.sop_instance_uid in self.kept)
        failed = tuple(Failure(r, _NO_SUCH_OBJECT) for r in of if r not in held)
        kind, told = commitment.report(CommitmentResult(asked.TransactionUID, held, failed))
        association = event.assoc

        def answer() -> None:
            self._wait()
            with suppress(RuntimeError):  # who asked is gone
                association.send_n_event_report(told, kind, commitment.PUSH_MODEL, commitment.INSTANCE)

        self._answers[id(association)] = answer
        return 0, None

    def _on_sent(self, event: evt.Event) -> None:
        answer = self._answers.pop(id(event.assoc), None)
        if answer is not None:  # a handler may not send from its own thread
            threading.Thread(target=answer, daemon=True).start()
