"""A site whose studies and duties go on by themselves while time passes, by a clock that a test moves."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.config import Queue
from dicom_node.db.engine import reading
from dicom_node.domain.errors import DatabaseError, DestinationAwayError
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Kind
from dicom_node.pipeline.sweep import follow_the_clock, rescue_leases
from dicom_node.pipeline.worker import Worker
from dicom_node.store import reports
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset

HOUR = 3600.0
STEP = 10.0


class House(Site):
    """A site with the queue's defaults."""

    def __init__(self, engine: Engine, root: Path) -> None:
        super().__init__(engine, root)
        self.queue = Queue()
        self.worker = Worker(
            engine,
            self.queue,
            {Kind.ANALYSE: self.analyse, Kind.DELIVER: self.dispatch},
            "test",
            self.clock,
            lambda: 0.5,
        )
        self.studies: list[str] = []

    def send(self) -> Dataset:
        """Let a modality send one study, until it is taken, on an association of its own."""
        number = len(self.studies)
        ds = chest_dataset(
            seed=number % 8, StudyInstanceUID=f"2.25.{number + 1}", SOPInstanceUID=f"2.25.9{number}"
        )
        self.receive(ds, association=str(number))
        self.studies.append(str(ds.StudyInstanceUID))
        self.associations.ended(str(number), "released")
        return ds

    def duties(self) -> None:
        """Do once what the schedule and the workers do again and again; a database that is away is waited for."""
        for duty in (
            lambda: follow_the_clock(self.engine, self.clock, self.queue.lease_seconds),
            lambda: rescue_leases(self.engine, self.clock),
            self.gather,
            self.work,
        ):
            with suppress(DatabaseError):
                duty()

    def let_pass(self, seconds: float, step: float = STEP) -> None:
        for _ in range(int(seconds / step)):
            self.clock.forward(step)
            self.duties()

    def drained(self) -> bool:
        """Say whether each study has one report, the same one at each destination, and nothing is left to do."""
        with reading(self.engine) as conn:
            made = {study: len(reports.of_study(conn, study)) for study in self.studies}
        assert made == dict.fromkeys(self.studies, 1)
        arrived = {(name, content) for name, content in self.peer.kept}
        assert Counter(name for name, _ in arrived) == dict.fromkeys(self.destinations, len(self.studies))
        return all(item.state is State.COMPLETED for kind in Kind for item in self.items(kind))


def away(_destination: Destination) -> int:
    raise DestinationAwayError("it refuses the connection")
