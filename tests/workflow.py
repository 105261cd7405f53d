"""A workflow manager that knows PS3.4 annex CC and pynetdicom alone, and a site that offers its steps to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from sqlalchemy import Engine

from dicom_node.config import Receive
from dicom_node.db.engine import writing
from dicom_node.deliver import step_events as sending
from dicom_node.domain.audit import StepRequested
from dicom_node.domain.types import Destination
from dicom_node.pipeline import rerun
from dicom_node.pipeline.step_keeping import prune_steps
from dicom_node.pipeline.step_outputs import Places
from dicom_node.pipeline.step_said import Said
from dicom_node.pipeline.step_telling import tell_events
from dicom_node.pipeline.step_watching import Watching
from dicom_node.pipeline.steps import Steps
from dicom_node.receive.procedure_steps import ProcedureStepService
from dicom_node.receive.scp import Scp
from dicom_node.report import profile
from tests.integration.test_pipeline import QUIET, Site
from tests.phantoms import chest_dataset

PUSH, WATCH, PULL, EVENT, QUERY = (f"1.2.840.10008.5.1.4.34.6.{n}" for n in (1, 2, 3, 4, 5))
GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED = "1.2.840.10008.5.1.4.34.5.1"
PEERS = [{"ae_title": "MANAGER"}, {"ae_title": "CR1", "sop_classes": ["CR"]}]
STUDY, STEP = "2.25.4711", "2.25.815"
KEEP = timedelta(days=30)


class Manager:
    """A workflow manager: asks the node, and listens to its events."""

    def __init__(self, address: tuple[str, int], calling: str = "MANAGER") -> None:
        entity = ApplicationEntity(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        for sop_class in (PUSH, WATCH, PULL, QUERY):
            entity.add_requested_context(sop_class)
        self.association: Association = entity.associate(*address)

    def create(self, ds: Dataset, uid: str | None = STEP) -> int:
        status, _ = self.association.send_n_create(ds, PUSH, uid)
        return int(status.Status)

    def get(self, uid: str = STEP) -> Dataset:
        status, ds = self.association.send_n_get([], PUSH, uid, meta_uid=PULL)
        assert status.Status == 0, f"0x{status.Status:04X} {status.get('ErrorComment')}"
        assert ds is not None
        return ds

    def act(self, action: int, uid: str = STEP, over: str = WATCH, **said: object) -> int:
        ds = Dataset()
        for keyword, value in said.items():
            setattr(ds, keyword, value)
        status, _ = self.association.send_n_action(ds if said else None, action, PUSH, uid, meta_uid=over)
        return int(status.Status)

    def find(self, **keys: object) -> list[Dataset]:
        ds = Dataset()
        for keyword, value in keys.items():
            setattr(ds, keyword, value)
        answers = list(self.association.send_c_find(ds, QUERY))
        assert answers[-1][0].Status == 0
        return [found for status, found in answers if status.Status == 0xFF00 and found is not None]


class Listener:
    """Takes events as a subscriber does: State Reports in `heard`, all of them whole in `events`."""

    def __init__(self, title: str = "MANAGER") -> None:
        self.heard: list[tuple[str, str]] = []
        self.events: list[tuple[int, str, Dataset]] = []
        entity = ApplicationEntity(title)
        entity.add_supported_context(EVENT, scu_role=True, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )
        self.port = self.server.server_address[1]

    def of(self, kind: int) -> list[Dataset]:
        return [ds for one, _, ds in self.events if one == kind]

    def _hear(self, event: evt.Event) -> tuple[int, None]:
        kind, uid, ds = event.request.EventTypeID, event.request.AffectedSOPInstanceUID, event.event_information
        self.events.append((kind, uid, ds))
        if kind == 1:
            self.heard.append((uid, ds.ProcedureStepState))
        return 0, None


class Provider:
    """A site whose steps are offered on a port."""

    def __init__(self, engine: Engine, root: Path, objects: tuple[str, ...] = (), own: str = "") -> None:
        self.site = Site(engine, root, objects)
        self.port: int | None = None
        self.heard: list[StepRequested] = []
        places = Places(self.site.destinations, own, profile.cut_uid)
        said = Said(engine, self.site.files, "DICOMNODE", places)
        self.steps = Steps(
            engine,
            self.site.files,
            said,
            self.site.clock,
            device_uid="2.25.1",
            codes=("110004^DCM",),
            archives={"PACS": "pacs"},
            keep=KEEP,
        )
        self.watching = Watching(
            engine,
            self.site.files,
            said,
            self.site.clock,
            keep=KEEP,
            reachable=lambda title, _address: self.reach(title, "") is not None,
        )
        self.scp = Scp(
            Receive.model_validate({"port": 0, "peers": PEERS}),
            incoming=self.site.files.incoming,
            ingest=self.site.ingest,
            admit=lambda: None,
            opened=lambda _facts: None,
            ended=lambda _id, _how: None,
            clock=self.site.clock,
            services=[ProcedureStepService(self.steps, self.watching, self._note, self.site.clock)],
        )

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Let the manager listen at a port that the node knows."""
        listener = Listener()
        self.port = listener.port
        try:
            yield listener
        finally:
            listener.server.shutdown()

    def reach(self, title: str, _address: str) -> Destination | None:
        return (
            Destination("peer", "MANAGER", "127.0.0.1", self.port) if title == "MANAGER" and self.port else None
        )

    def study(self) -> None:
        self.site.receive(
            chest_dataset(StudyInstanceUID=STUDY, SOPInstanceUID="2.25.99", PatientName="Doe^Jane")
        )
        self.site.associations.ended("a", "released")

    def complete(self) -> None:
        self.site.clock.forward(QUIET + 1)
        self.site.gather()
        self.steps.follow()

    def retry(self, item_id: int) -> None:
        """Have a failed analysis done again, as an operator does."""
        with writing(self.site.engine) as conn:
            rerun.retry(conn, item_id, self.site.clock())
        self.steps.follow()

    def tell(self, tell: Callable[..., int] | None = None) -> int:
        """Tell what is owed, over the network or by another way."""
        return tell_events(
            self.site.engine,
            self.reach,
            tell or partial(sending.tell, calling_ae_title="DICOMNODE", timeout=5.0),
            self.watching,
            self.site.clock,
        )

    def prune(self, *, dry_run: bool = False) -> int:
        return prune_steps(
            self.site.engine, self.site.files, self.watching, self.site.clock, KEEP, dry_run=dry_run
        )

    def kept(self) -> list[str]:
        """Return the names of the files that hold what peers said."""
        return sorted(path.name for path in (self.site.files.root / "steps").glob("*"))

    def _note(self, event: object) -> None:
        assert isinstance(event, StepRequested)
        self.heard.append(event)


def asked(**changes: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = "山田^太郎", "P1"
    ds.ScheduledProcedureStepPriority = "HIGH"
    ds.ProcedureStepLabel, ds.WorklistLabel = "CAD", "CAD"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "110004", "DCM", "Computer Aided Detection"
    ds.ScheduledWorkitemCodeSequence = [code]
    ds.ScheduledProcedureStepStartDateTime = "20260102030405"
    ds.InputReadinessState, ds.ProcedureStepState = "READY", "SCHEDULED"
    source = Dataset()
    source.StudyInstanceUID = STUDY
    way = Dataset()
    way.RetrieveAETitle = "PACS"
    source.DICOMRetrievalSequence = [way]
    ds.InputInformationSequence = [source]
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds
