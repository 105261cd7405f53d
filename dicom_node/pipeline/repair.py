"""Mends what can be mended of what `deep` finds. Each repair leaves an event; nothing is thrown away unseen."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from pydicom import dcmread
from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import writing
from dicom_node.domain.errors import NodeError, StoreError
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind, Received
from dicom_node.pipeline import rerun
from dicom_node.pipeline.custody import Associations
from dicom_node.pipeline.headers import READ_ERRORS, read_header, text_of
from dicom_node.pipeline.ingest import Ingest
from dicom_node.pipeline.retention import remove_going
from dicom_node.queue import items
from dicom_node.store import instances, objects, reports, retention, shelves, step_needs
from dicom_node.store.faults import Code, Fault
from dicom_node.store.files import FileStore

REPAIR_AE_TITLE = "REPAIR"
"""Calling AE title of images that are entered again where their file does not name its sender."""


class Repair:
    """Callable that mends one fault and returns what was done.

    Parameters
    ----------
    ingest
        Takes an image in, as for one that a peer sends.
    remake
        Returns the bytes of a report (Study Instance UID, revision) as they come out now.
    clock
        Returns the current moment, timezone-aware.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        ingest: Ingest,
        remake: Callable[[str, int], bytes],
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._files = files
        self._ingest = ingest
        self._remake = remake
        self._clock = clock
        self._associations = Associations(engine, clock)

    def __call__(self, fault: Fault) -> str:
        """Mend one fault.

        Raises
        ------
        NodeError
            If it cannot be mended, with the reason; nothing is changed then.
        """
        mend: dict[Code, Callable[[Fault], str]] = {
            Code.WRONG_MODE: self._mode,
            Code.STALE: self._stale,
            Code.ORPHAN_IMAGE: self._enter,
            Code.FOUND_IMAGE: self._enter,
            Code.DAMAGED_ORPHAN: self._aside,
            Code.ORPHAN_REPORT: self._aside,
            Code.DAMAGED_IMAGE: self._lost,
            Code.MISSING_IMAGE: self._lost,
            Code.LEFT_OVER: self._left_over,
            Code.MISSING_REPORT: self._report,
            Code.DAMAGED_REPORT: self._report,
            Code.MISSING_OBJECT: self._object,
            Code.DAMAGED_OBJECT: self._object,
            Code.ORPHAN_STEP: self._stale,
            Code.MISSING_STEP: self._step,
            Code.DAMAGED_STEP: self._step,
            Code.NO_ANALYSIS: self._analyse,
            Code.UNANSWERED: self._answer,
            Code.NO_DELIVERY: self._deliver,
        }
        return mend[fault.code](fault)

    def _mode(self, fault: Fault) -> str:
        shelves.make_private(self._files, fault.what)
        return self._told(fault, "mode corrected")

    def _stale(self, fault: Fault) -> str:
        try:
            (self._files.root / fault.what).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{fault.what} cannot be removed: {error.strerror}") from error
        return self._told(fault, "removed: it was never acknowledged")

    def _enter(self, fault: Fault) -> str:
        """Take a kept file in as if it had just been received; the file itself stays where it is."""
        kept = self._files.root / fault.what
        staged = self._files.incoming / f"repair-{uuid4()}.dcm"
        try:
            offset = self._files.dataset_offset(kept)
            meta = dcmread(kept, stop_before_pixels=True, specific_tags=[]).file_meta
            syntax = str(meta.TransferSyntaxUID)
            sender = str(meta.get("SourceApplicationEntityTitle") or REPAIR_AE_TITLE)
            header = read_header(kept)
        except (NodeError, *READ_ERRORS):
            return self._aside(fault)
        try:
            try:
                os.link(kept, staged)
            except OSError:
                shutil.copyfile(kept, staged)
            association, now = str(uuid4()), self._clock()
            self._associations.opened(association, sender, "", "", now)
            sop_class, sop_instance = text_of(header, "SOPClassUID"), text_of(header, "SOPInstanceUID")
            ingested = self._ingest(
                Received(
                    staged, offset or 0, sop_class, sop_instance, syntax, sender, "", "", association, now
                )
            )  # fmt: skip
            self._associations.ended(association, "released")
        except OSError as error:
            raise StoreError(f"{fault.what} cannot be entered again: {error.strerror}") from error
        finally:
            staged.unlink(missing_ok=True)
        return self._told(fault, f"entered again: {ingested.value}")

    def _aside(self, fault: Fault) -> str:
        where = shelves.set_aside(self._files, self._files.root / fault.what)
        return self._told(fault, f"moved to {where.relative_to(self._files.root)}")

    def _lost(self, fault: Fault) -> str:
        done = "counts as lost; its study is answered without it. Send it again"
        if fault.code is Code.DAMAGED_IMAGE:
            where = shelves.set_aside(self._files, self._files.root / fault.what)
            done = f"moved to {where.relative_to(self._files.root)}, {done}"
        elif not any(self._files.root.glob("instances/*/*.dcm")):
            raise StoreError("no image at all is in the store: is its disk mounted?")
        with writing(self._engine) as conn:
            instances.lose(conn, fault.digest, fault.code, self._clock())
        return done

    def _left_over(self, fault: Fault) -> str:
        with writing(self._engine) as conn:
            retention.let_left_over_go(conn, fault.digest)
        remove_going(self._engine, self._files)
        return self._told(fault, "removed: its time was over")

    def _report(self, fault: Fault) -> str:
        study, revision = fault.study_instance_uid, fault.revision
        try:
            content = self._remake(study, revision)
        except NodeError:
            content = b""
        if hashlib.sha256(content).hexdigest() == fault.digest:
            self._files.put_report(content)
            with writing(self._engine) as conn:
                events.record(
                    conn,
                    self._clock(),
                    "report.rebuilt",
                    study_instance_uid=study,
                    revision=revision,
                    digest=fault.digest,
                )
            return "made again, the same bytes"
        path = self._files.root / fault.what
        if path.exists():
            shelves.set_aside(self._files, path)
        now = self._clock()
        with writing(self._engine) as conn:
            stored = reports.get(conn, study, revision)
            if stored is None or stored.digest != fault.digest:
                raise StoreError("the report has changed meanwhile; look again")
            reports.lose(conn, stored.sop_instance_uid, now)
            waiting = [
                item
                for item in items.of_study(conn, study)
                if item.kind is Kind.DELIVER and item.revision == revision and item.state is not State.COMPLETED
            ]
            if not waiting:
                return "its bytes cannot be made again, and count as lost; every destination has them"
            if not instances.any_held(conn, study):
                return "its bytes cannot be made again, and count as lost; the images are gone. Send them again"
            for item in waiting:
                if item.state is not State.CANCELED:
                    items.cancel(conn, item.id, now, reason="the report's bytes were lost; analysed again")
            number = rerun.again(conn, study, now).revision
        return f"its bytes cannot be made again; analysed again as revision {number}"

    def _object(self, fault: Fault) -> str:
        path = self._files.root / fault.what
        if path.exists():
            shelves.set_aside(self._files, path)
        with writing(self._engine) as conn:
            objects.lose(conn, fault.digest, self._clock())
        return "counts as lost; `dicom-node worklist rerun` analyses the study once more and makes another"

    def _step(self, fault: Fault) -> str:
        path = self._files.root / fault.what
        if not path.parent.is_dir():
            raise StoreError("the folder of procedure steps is not in the store: is its disk mounted?")
        moved = ""
        if path.exists():
            moved = f"moved to {shelves.set_aside(self._files, path).relative_to(self._files.root)}, "
        with writing(self._engine) as conn:
            done = step_needs.lose(conn, fault.digest)
        return self._told(fault, f"{moved}{done}")

    def _analyse(self, fault: Fault) -> str:
        with writing(self._engine) as conn:
            items.schedule(conn, Kind.ANALYSE, fault.study_instance_uid, fault.revision, self._clock())
        return "analysis scheduled"

    def _answer(self, fault: Fault) -> str:
        now = self._clock()
        with writing(self._engine) as conn:
            of_study = items.of_study(conn, fault.study_instance_uid)
            item = next(i for i in of_study if i.kind is Kind.ANALYSE and i.revision == fault.revision)
            if item.state is State.FAILED:
                items.requeue(conn, item.id, now)
                return "analysis scheduled again"
            number = rerun.again(conn, fault.study_instance_uid, now).revision
        return f"analysed again as revision {number}"

    def _deliver(self, fault: Fault) -> str:
        with writing(self._engine) as conn:
            items.schedule(
                conn,
                Kind.DELIVER,
                fault.study_instance_uid,
                fault.revision,
                self._clock(),
                destination=fault.destination,
            )
        return "delivery scheduled"

    def _told(self, fault: Fault, done: str) -> str:
        with writing(self._engine) as conn:
            events.record(
                conn,
                self._clock(),
                "store.repaired",
                study_instance_uid=fault.study_instance_uid,
                fault=fault.code.value,
                what=fault.what,
                done=done,
            )
        return done
