"""The desk of a node: answers what people ask on the page, and carries out what they order. See `web.desk.Desk`.

Owns nothing but the order in which its parts are asked; `node` joins it with pictures, priorities and peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine, select

from dicom_node.db import events
from dicom_node.db.engine import reading
from dicom_node.db.schema import instances
from dicom_node.domain.audit import Audit, StudiesListed, StudyAccessed
from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.people import By
from dicom_node.domain.reading import BankView, Filters, HealthView, Held, Order, StudyList, StudyRow, StudyView
from dicom_node.pipeline.desk_banks import Banks
from dicom_node.pipeline.desk_health import HealthDesk
from dicom_node.pipeline.desk_list import Listing
from dicom_node.pipeline.desk_orders import DeskOrders
from dicom_node.pipeline.desk_patients import Patients
from dicom_node.pipeline.desk_pictures import Pictures
from dicom_node.pipeline.desk_results import Results
from dicom_node.pipeline.desk_study import Study
from dicom_node.pipeline.orders import Row
from dicom_node.store.files import FileStore
from dicom_node.store.marks import Mark


class NodeDesk:
    """Answers from the database, the store and the folder of banks; every method is safe to call from any thread.

    Parameters
    ----------
    patients
        Reads headers; closed with the desk.
    listing, health, banks, orders
        The parts that answer.
    pictures
        Makes pictures, and knows which there are.
    audit
        Is told who looked at what.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        *,
        patients: Patients,
        listing: Listing,
        health: HealthDesk,
        banks: Banks,
        orders: DeskOrders,
        pictures: Pictures,
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._files = files
        self._patients = patients
        self._listing = listing
        self._study = Study(engine, files, listing, pictures)
        self._results = Results(engine, files)
        self._health = health
        self._banks = banks
        self._orders = orders
        self._pictures = pictures
        self._audit = audit
        self._clock = clock

    def warm_up(self, limit: int = 50) -> None:
        """Look at what people look at first, the first page of each order and a study: what is read once is then read.

        Those are headers of images, statements of the database and modules of the program.
        """
        rows: tuple[StudyRow, ...] = ()
        for order in Order:
            rows = self.studies(Filters(order=order), 0, limit).rows
        if rows:
            self.study(rows[0].study_instance_uid)

    def close(self) -> None:
        """End what goes on in the background."""
        self._patients.close()

    def studies(self, filters: Filters, offset: int, limit: int) -> StudyList:
        """Return one page of the list."""
        return self._listing.studies(filters, offset, limit)

    def study(self, study_instance_uid: str) -> StudyView:
        """Return one study. Raises NotFoundError."""
        return self._study.study(study_instance_uid)

    def picture(self, sop_instance_uid: str, kind: Literal["thumbnail", "image", "heat-map"]) -> bytes:
        """Return a picture of an image held here. Raises NotFoundError."""
        _, digest = self._held(sop_instance_uid)
        if kind == "heat-map":
            return self._pictures.heat_map(sop_instance_uid)
        return self._pictures.picture(self._files.instance_path(digest), digest, kind)

    def study_of(self, sop_instance_uid: str) -> str:
        """Return the study of an image held here. Raises NotFoundError."""
        study, _ = self._held(sop_instance_uid)
        return study

    def _held(self, sop_instance_uid: str) -> tuple[str, str]:
        """Return study and digest of an image."""
        table = instances
        with reading(self._engine) as conn:
            row = conn.execute(
                select(table.c.study_instance_uid, table.c.digest, table.c.kept).where(
                    table.c.sop_instance_uid == sop_instance_uid, table.c.conflict.is_(False)
                )
            ).one_or_none()
        if row is None or row.kept != "yes":
            raise NotFoundError(f"image {sop_instance_uid} is not held here")
        return row.study_instance_uid, row.digest

    def normal_picture(self, bank: str, identifier: str) -> bytes:
        """Return a JPEG of one of a bank's normals. Raises NotFoundError."""
        return self._pictures.normal(bank, identifier)

    def changes(self, after: int) -> tuple[int, Sequence[str]]:
        """Return how far events were looked at, and the studies they are about; below 0, only where the last one is."""
        with reading(self._engine) as conn:
            if after < 0:
                return events.last(conn), ()
            return events.since(conn, after)

    def banks(self) -> tuple[BankView, ...]:
        """Return all banks, those in use first."""
        return self._banks.banks()

    def health(self) -> HealthView:
        """Return the node at a glance."""
        return self._health.health()

    def destinations(self) -> tuple[str, ...]:
        """Return the names of the destinations that are configured."""
        return self._health.destinations()

    def retry(self, items: Iterable[int], by: By) -> Sequence[Row]:
        """Schedule items again."""
        return self._orders.retry(items, by)

    def cancel(self, items: Iterable[int], by: By) -> Sequence[Row]:
        """Cancel items."""
        return self._orders.cancel(items, by)

    def rerun(self, studies: Iterable[str], bank: str, by: By) -> Sequence[Row]:
        """Have studies analysed again, with one bank or ("") with those that are active."""
        return self._orders.rerun(studies, bank, by)

    def prioritise(self, study_instance_uid: str, priority: int, by: By) -> Sequence[Row]:
        """Give the study's work that is not begun another priority."""
        return self._orders.prioritise(study_instance_uid, priority, by)

    def mark(self, study_instance_uid: str, mark: Mark, by: By) -> None:
        """Note a person's word about a study."""
        self._orders.mark(study_instance_uid, mark, by)

    def activate(self, bank: str, by: By) -> None:
        """Make a bank the active one."""
        self._orders.activate(bank, by)

    def rollback(self, by: By) -> str:
        """Use again what was active before; return its name."""
        return self._orders.rollback(by)

    def results(self) -> Sequence[Held]:
        """Return every DICOM object of this node's own making that is still held."""
        return self._results.held()

    def result(self, sop_instance_uid: str) -> bytes:
        """Return one of them as a Part 10 file, compared with its digest. Raises NotFoundError."""
        return self._results.content(sop_instance_uid)

    def described(self, held: Held) -> Row:
        """Return what queries ask of one of them, as DICOM JSON."""
        return dict(self._results.described(held))

    def metadata(self, sop_instance_uid: str) -> Row:
        """Return all of one of them as DICOM JSON, without pixels. Raises NotFoundError."""
        return dict(self._results.metadata(sop_instance_uid))

    def looked_at(self, study_instance_uid: str, by: By) -> None:
        """Note in the audit trail that a person saw a study."""
        self._audit(StudyAccessed(self._clock(), by.name, study_instance_uid, by.address))

    def listed(self, by: By) -> None:
        """Note in the audit trail that a person saw the list."""
        self._audit(StudiesListed(self._clock(), by.name, "reading worklist", by.address))
