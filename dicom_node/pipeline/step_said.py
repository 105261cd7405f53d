"""Says what a procedure step is now: its creator's data set or the images' headers, and where the node is with it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from io import BytesIO

from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.performing import Output
from dicom_node.domain.procedure_steps import Step
from dicom_node.domain.types import Instance
from dicom_node.pipeline import step_matching, step_outputs, step_reports, step_sets
from dicom_node.pipeline.headers import read_header
from dicom_node.pipeline.step_outputs import Places
from dicom_node.store import instances, reports, step_files
from dicom_node.store.files import FileStore

_REMEMBERED = 5_000
"""Patients of images, by digest, in memory only."""


class Said:
    """Callable that returns the data set of a step. Safe to share between threads.

    Parameters
    ----------
    ae_title
        This node's: the station that performs, the worklist of the steps it makes itself.
    places
        Where output can be had.
    """

    def __init__(self, engine: Engine, files: FileStore, ae_title: str, places: Places) -> None:
        self._engine = engine
        self._files = files
        self._ae_title = ae_title
        self._places = places
        self._headers: OrderedDict[str, Dataset] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, step: Step) -> Dataset:
        """Return what a step says (PS3.4 table CC.2.5-3).

        Raises
        ------
        StoreError
            If what its creator sent is missing or damaged.
        """
        made: tuple[Output, ...] = ()
        held: tuple[Instance, ...] = ()
        study = step.study_instance_uid
        with reading(self._engine) as conn:
            if step.revision is not None:
                held = instances.of_revision(conn, self._files, study, step.revision)
                report = reports.get(conn, study, step.revision)
                if report is not None and step.state == ups.COMPLETED:
                    made = step_outputs.listed(conn, study, report.sop_instance_uid, self._places)
        own = not step.digest
        base = step_sets.own(step, self._first(held), held, self._ae_title) if own else self.kept(step.digest)
        return step_sets.completed(base, step, made, self._ae_title, ready=step.work_item_id is not None)

    def may_match(self, step: Step, keys: Dataset) -> bool:
        """Return whether a step may match the keys of a query: False only where its patient is another.

        Looks at one header, or remembers it: thousands of steps need not be put together to find those of a patient.
        """
        about_patient = step_reports.chosen(keys, step_sets.OF_PATIENT[1:])
        if step.digest or step.revision is None or not about_patient:
            return True
        with reading(self._engine) as conn:
            held = instances.of_revision(conn, self._files, step.study_instance_uid, step.revision)
        return step_matching.matches(about_patient, step_sets.patient(self._first(held)))

    def _first(self, held: Sequence[Instance]) -> Dataset:
        """Return the patient's attributes of the first image; empty where it is not held or cannot be read."""
        if not held:
            return Dataset()
        path = held[0].path
        with self._lock:
            if (known := self._headers.get(path.stem)) is not None:
                self._headers.move_to_end(path.stem)
                return known
        header = Dataset()
        try:
            header.update(step_reports.chosen(read_header(path), step_sets.OF_PATIENT))
        except (CannotUnderstandError, OSError):
            return header
        with self._lock:
            self._headers[path.stem] = header
            while len(self._headers) > _REMEMBERED:
                self._headers.popitem(last=False)
        return header

    def kept(self, digest: str) -> Dataset:
        """Return what a peer said, from its file.

        Raises
        ------
        StoreError
            If the file is missing or damaged.
        """
        return Dataset(dcmread(BytesIO(step_files.read(self._files, digest))))
