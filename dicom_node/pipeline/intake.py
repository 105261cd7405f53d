"""The way in for images that the node fetched: the same staging, checks and custody as for those that are sent to it.

Each fetch is an association of its own to the rest of the program, so that its study waits until the fetch is over and
the audit trail tells of it. Also fills a private folder instead, for images that are only to be looked at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from dicom_node.domain.errors import DataSetMismatchError
from dicom_node.domain.retrieval import Archive
from dicom_node.domain.types import Ingested, Received
from dicom_node.pipeline.ingest import identify
from dicom_node.receive.association import AssociationFacts
from dicom_node.receive.handlers import StoreHandler
from dicom_node.receive.staging import StagedDataSet

Ingest = Callable[[Received], Ingested]


class Way:
    """The way in for one study out of one archive; see `worklist.intake.Intake`.

    Parameters
    ----------
    facts
        Of the association that the fetch counts as.
    study_instance_uid
        Images of another study are refused: nobody asked for them.
    folder
        Existing folder that data sets are written to while they come.
    ingest
        Takes custody of one.
    admit
        Raises OutOfResourcesError where the disk is too full.
    largest
        Bytes that a data set may have.
    """

    def __init__(
        self,
        facts: AssociationFacts,
        study_instance_uid: str,
        folder: Path,
        ingest: Ingest,
        admit: Callable[[], None],
        largest: int,
        clock: Callable[[], datetime],
    ) -> None:
        self.taken: dict[str, Ingested] = {}
        self._facts = facts
        self._study = study_instance_uid
        self._folder = folder
        self._ingest = ingest
        self._admit = admit
        self._largest = largest
        self._handler = StoreHandler(self._take, "accept", clock)
        self._numbers = count(1)
        self._staged: set[StagedDataSet] = set()

    def stage(self, check: Callable[[], Any]) -> BytesIO:
        """Return the buffer for the next data set."""
        path = self._folder / f"{self._facts.id}-{next(self._numbers)}.dcm"
        staged = StagedDataSet(path, check, self._admit, self._facts.calling, self._largest)
        self._staged.add(staged)
        return staged

    def take(self, staged: StagedDataSet) -> int:
        """Take what was staged; return the status that answers it. Never raises."""
        answer = self._handler(staged, self._facts)
        self._staged.discard(staged)
        return answer.status

    def require_space(self) -> None:
        """Raise OutOfResourcesError where the disk is too full."""
        self._admit()

    def discard(self) -> None:
        """Remove what was staged and never taken."""
        while self._staged:
            self._staged.pop().discard()

    def _take(self, received: Received) -> Ingested:
        study, _, _ = identify(received)
        if study != self._study:
            raise DataSetMismatchError(
                f"{received.sop_instance_uid} belongs to study {study}; {self._study} was asked for"
            )
        became = self._ingest(received)
        self.taken[received.sop_instance_uid] = became
        return became


class IntoStore:
    """Opens ways into the store.

    Parameters
    ----------
    opened, ended
        Told of the association that a fetch counts as; see `receive.scp.Scp`.
    """

    def __init__(
        self,
        incoming: Path,
        ingest: Ingest,
        admit: Callable[[], None],
        largest: int,
        opened: Callable[[AssociationFacts], None],
        ended: Callable[[str, str], None],
        called: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._incoming = incoming
        self._ingest = ingest
        self._admit = admit
        self._largest = largest
        self._opened = opened
        self._ended = ended
        self._called = called
        self._clock = clock

    @contextmanager
    def __call__(self, archive: Archive, study_instance_uid: str) -> Iterator[Way]:
        """Open a way for one study; what was not taken is gone at the end."""
        facts = _facts(archive, self._called, self._clock)
        way = Way(
            facts, study_instance_uid, self._incoming, self._ingest, self._admit, self._largest, self._clock
        )
        self._opened(facts)
        how = "aborted"
        try:
            yield way
            how = "released"
        finally:
            way.discard()
            self._ended(facts.id, how)


class IntoFolder:
    """Opens ways into a private folder; nothing of it enters the node. The folder is its owner's to remove.

    Attributes
    ----------
    admit
        Raises OutOfResourcesError where the disk is too full.
    """

    def __init__(
        self, folder: Path, admit: Callable[[], None], largest: int, clock: Callable[[], datetime]
    ) -> None:
        self.admit = admit
        self._folder = folder
        self._largest = largest
        self._clock = clock
        self._files: dict[str, dict[str, Path]] = {}
        self._one = threading.Lock()

    @contextmanager
    def __call__(self, archive: Archive, study_instance_uid: str) -> Iterator[Way]:
        """Open a way for one study."""
        facts = _facts(archive, "", self._clock)
        way = Way(facts, study_instance_uid, self._folder, self.take, self.admit, self._largest, self._clock)
        try:
            yield way
        finally:
            way.discard()

    def take(self, received: Received) -> Ingested:
        """Keep an image of whatever study; what was not asked for is nobody's, and goes with the folder."""
        study, _, _ = identify(received)
        with self._one:
            files = self._files.setdefault(study, {})
            known = received.sop_instance_uid in files
            if known:
                received.path.unlink()
            else:
                files[received.sop_instance_uid] = received.path
        return Ingested.DUPLICATE if known else Ingested.NEW

    def files(self, study_instance_uid: str) -> Mapping[str, Path]:
        """Return what is here of a study, by SOP Instance UID."""
        with self._one:
            return dict(self._files.get(study_instance_uid, {}))

    def held(self, study_instance_uid: str) -> frozenset[str]:
        """Return the SOP Instance UIDs that are here of a study."""
        return frozenset(self.files(study_instance_uid))


def _facts(archive: Archive, called: str, clock: Callable[[], datetime]) -> AssociationFacts:
    calling = archive.ae_title or archive.name[:16]
    return AssociationFacts(str(uuid4()), calling, called, archive.host, clock())
