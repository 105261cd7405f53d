"""A desk over a real database and store, and the application for it, for tests that ask as a person or a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Header
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from starlette.exceptions import HTTPException

from dicom_node.domain.audit import AuditEvent
from dicom_node.domain.errors import NodeError
from dicom_node.domain.reading import PeerView, Role
from dicom_node.domain.types import Destination
from dicom_node.pipeline.desk import NodeDesk
from dicom_node.pipeline.desk_banks import Banks
from dicom_node.pipeline.desk_health import HealthDesk, Itself
from dicom_node.pipeline.desk_list import Listing
from dicom_node.pipeline.desk_orders import DeskOrders
from dicom_node.pipeline.desk_patients import Patients
from dicom_node.pipeline.desk_pictures import NoPictures, Pictures
from dicom_node.store.files import FileStore
from dicom_node.web import problems
from dicom_node.web.api import api
from dicom_node.web.dicomweb import dicomweb
from tests.fakes import ManualClock

PEERS = {name: Destination(name, name.upper(), "127.0.0.1", 104) for name in ("pacs", "vna")}


@dataclass
class Desk:
    """A desk and its parts; `audited` is what it told the audit trail."""

    engine: Engine
    files: FileStore
    clock: Callable[[], Any] = field(default_factory=ManualClock)
    pictures: Pictures = field(default_factory=NoPictures)
    audited: list[AuditEvent] = field(default_factory=list)
    peers: tuple[PeerView, ...] = ()

    def __post_init__(self) -> None:
        root: Path = self.files.root
        self.patients = Patients(self.engine, self.files)
        banks = Banks(root.parent / "banks", self.engine, self.clock)
        self.desk = NodeDesk(
            self.engine,
            self.files,
            patients=self.patients,
            listing=Listing(self.engine, self.patients, self.clock),
            health=HealthDesk(self.engine, Itself("1.0", "NODE", root, 1000, PEERS, self.peers), self.clock),
            banks=banks,
            orders=DeskOrders(self.engine, banks, self.audited.append, self.clock),
            pictures=self.pictures,
            audit=self.audited.append,
            clock=self.clock,
        )


@dataclass(frozen=True)
class Somebody:
    """A person who is who a header says."""

    name: str


def require(role: Role) -> Callable[..., Somebody]:
    """Let those in who say that they have the role: who may look is tested where that is decided."""
    order = list(Role)

    def person(x_role: str = Header("")) -> Somebody:
        if not x_role:
            raise HTTPException(401, "log in first")
        if order.index(Role(x_role)) < order.index(role):
            raise HTTPException(403, f"this needs the role {role}")
        return Somebody(f"a {x_role}")

    return person


def application(desk: Any) -> FastAPI:
    """Return the application for programs: the API and DICOMweb, without logins."""
    app = FastAPI(title="dicom-node")
    app.state.desk = desk
    app.include_router(api(require))
    app.include_router(dicomweb(require))
    for kind in (NodeError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, lambda _request, error: problems.answer(error))
    return app


def client(desk: Any, role: str = "admin") -> TestClient:
    """Return a client of that role."""
    return TestClient(application(desk), headers={"X-Role": role} if role else {}, raise_server_exceptions=True)
