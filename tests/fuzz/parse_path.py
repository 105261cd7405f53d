"""A data set on its way to its report: staged file, ingest, analysis with real decoding, report, in one process.

Whatever the bytes, the outcome is a stated refusal or a report.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.config import Db, Eligibility
from dicom_node.db.engine import open_engine, writing
from dicom_node.db.migrate import upgrade
from dicom_node.db.schema import metadata
from dicom_node.domain.errors import CannotDecodeError, NodeError
from dicom_node.domain.states import State
from dicom_node.domain.types import ImageResult, Ingested, Kind, Received, Refusal, Score
from dicom_node.pipeline import image
from dicom_node.pipeline.headers import read_header
from dicom_node.pipeline.ingest import identify
from dicom_node.pipeline.verdict import conclude
from dicom_node.receive.staging import Command, file_header
from dicom_node.report.consistency import check
from dicom_node.report.encoding import _data_set
from dicom_node.report.header import normalise
from dicom_node.score.attributes import text
from dicom_node.score.eligibility import judge, stated_body_part
from dicom_node.score.pixels import assumptions, to_grey
from dicom_node.store import reports
from tests.fakes import PROVENANCE
from tests.integration.test_pipeline import DEVICE, Site

SLOW = 5.0
"""Seconds of processor time within which an input of some kilobytes is answered, on any machine."""


class FindingError(AssertionError):
    """An input was answered neither by a refusal nor by a report, or took too long."""


def score(ds: Dataset) -> ImageResult:
    """Score as the node does, with the mean grey value in the place of a bank."""
    broken = judge(ds, Eligibility(modalities=(), minimum_pixels=1, body_parts=(), view_positions=()))
    try:
        grey = to_grey(ds, window="voi", maximum_pixels=1_000_000)
    except CannotDecodeError as error:
        return ImageResult("", "", "", refusal=Refusal("decode", str(error)))
    if broken is not None:
        return ImageResult("", "", "", refusal=broken)
    assumptions(ds), stated_body_part(ds), text(ds, "Modality")
    percentile = round(float(grey.mean()) * 100, 3)
    measured = Score(percentile / 100, percentile, 0.5, 0.95, above=False)
    return ImageResult("", "", "", score=measured, provenance=PROVENANCE)


class ParsePath:
    """A node without network and without a disk to wait for; every input finds it empty."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_engine(Db(url=f"sqlite:///{folder / 'node.db'}"))
        upgrade(self.engine)
        self.site = Site(self.engine, folder / "store")
        self.site.judge = score
        self.site.analyse._destinations = ()
        self._count = 0

    def __call__(
        self, content: bytes, sop_class: str, sop_instance: str, syntax: str, *, whole: bool = True
    ) -> str:
        """Answer one data set.

        Parameters
        ----------
        content, sop_class, sop_instance, syntax
            The data set, and what its command and its context say.
        whole
            Go through database, queue and the report's content tree; else only through what looks at the data set:
            identification, decoding, score, the report's header. That is ten times as fast.

        Returns
        -------
        str
            "refused: ..." or "report: ...", in a few words.

        Raises
        ------
        FindingError
            Where neither was the outcome. Every other exception is a finding, too.
        """
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = self._answer(content, sop_class, sop_instance, syntax, whole=whole)
        if time.process_time() - begun > SLOW:
            raise FindingError(f"took {time.process_time() - begun:.1f} s: {outcome}")
        return outcome

    def _answer(self, content: bytes, sop_class: str, sop_instance: str, syntax: str, *, whole: bool) -> str:
        site = self.site
        self._count += 1
        path = site.files.incoming / f"{self._count}.dcm"
        head = file_header(Command(sop_class, sop_instance, syntax), "FUZZ")
        path.write_bytes(head + content)
        received = Received(
            path, len(head), sop_class, sop_instance, syntax, "FUZZ", "NODE", "127.0.0.1", "a", site.clock()
        )
        try:
            if not whole:
                return self._look(received)
            ingested = site.ingest(received)
        except NodeError as error:
            return f"refused: {type(error).__name__}"
        finally:
            path.unlink(missing_ok=True)
        if ingested is Ingested.OWN:
            return "refused: own object"
        try:
            return self._report()
        finally:
            self._forget()

    def _look(self, received: Received) -> str:
        study, series, device = identify(received)
        if device == DEVICE:
            return "refused: own object"
        header = read_header(received.path)
        found = image.analyse(received.path, score)
        uids = (received.sop_class_uid, received.sop_instance_uid, series)
        result = conclude(study, 1, [ImageResult(*uids, found.score, found.refusal, found.provenance)])
        check(result, [header], received.received_at)
        normal, _ = normalise(header)
        _data_set(normal, "ISO_IR 6")
        return f"report: {result.verdict.value}"

    def _report(self) -> str:
        site = self.site
        site.pass_quiet_time()
        site.work()
        (item,) = site.items(Kind.ANALYSE)
        with writing(self.engine) as conn:
            found = reports.of_study(conn, item.study_instance_uid)
        if not found:
            raise FindingError(f"no report: {item.reason}")
        if item.state is not State.COMPLETED:
            raise FindingError(f"gave up: {item.reason}")
        ds = dcmread(BytesIO(site.files.read_report(found[0].digest)))
        if ds.StudyInstanceUID != item.study_instance_uid:
            raise FindingError("the report is of another study")
        return f"report: {found[0].verdict.value}"

    def _forget(self) -> None:
        with writing(self.engine) as conn:
            for table in reversed(metadata.sorted_tables):
                if table.name != "node_facts":
                    conn.execute(table.delete())
        for kept in (*self.site.files.root.glob("instances/*/*"), *self.site.files.root.glob("reports/*/*")):
            kept.unlink()


@contextmanager
def parse_path() -> Iterator[ParsePath]:
    """Run one in a folder that is in memory where the machine has such a thing."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    path = None
    try:
        path = ParsePath(folder)
        yield path
    finally:
        if path is not None:
            path.engine.dispose()
        shutil.rmtree(folder, ignore_errors=True)
