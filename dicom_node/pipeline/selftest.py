"""Sends a phantom through the live port as a modality would and judges the report that returns."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.deliver import scu
from dicom_node.domain.errors import NotFoundError, SelftestError
from dicom_node.domain.ids import DELIVERED_AE_TITLE as DELIVERED_AE_TITLE
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Kind
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from dicom_node.report import text
from dicom_node.store import overview, reports
from dicom_node.store.files import FileStore

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Passed:
    """What the self-test saw."""

    study_instance_uid: str
    verdict: str
    percentile: float | None
    seconds: float
    delivered: tuple[str, ...]


def run(
    engine: Engine,
    files: FileStore,
    port: Destination,
    active_banks: Sequence[str],
    destinations: tuple[str, ...],
    timeout: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Passed:
    """Send one phantom to `port` and wait for its report and, with `destinations`, for its deliveries.

    Raises
    ------
    SelftestError
        If the report does not come in time, or is not the one that this phantom should get.
    DestinationAwayError, DestinationRefusedError
        If the node's own port does not take the phantom.
    """
    began = monotonic()
    deadline = began + timeout
    with tempfile.TemporaryDirectory() as folder:
        path, study = _phantom(Path(folder))
        image = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        calling = DELIVERED_AE_TITLE if destinations else SELFTEST_AE_TITLE
        statuses = scu.send_files(port, [path], calling_ae_title=calling)
    if statuses != [0]:
        raise SelftestError(f"the phantom was answered with 0x{statuses[0]:04X}; 0x0000 would be right")
    while True:
        with reading(engine) as conn:
            stored = reports.get(conn, study, 1)
            try:
                work = overview.show_study(conn, study).work_items
            except NotFoundError as error:
                raise SelftestError(
                    f"{port.ae_title} at {port.host}:{port.port} took the phantom, but the database of this "
                    "configuration does not hold it: something else listens there, or another node"
                ) from error
        deliveries = [i for i in work if i["kind"] == Kind.DELIVER and i["destination"] in destinations]
        failed = [f"{i['destination']}: {i['reason']}" for i in deliveries if i["state"] == State.FAILED]
        if failed:
            raise SelftestError(f"the report was made but not delivered: {'; '.join(failed)}")
        done = tuple(i["destination"] for i in deliveries if i["state"] == State.COMPLETED)
        if stored is not None and len(done) == len(destinations):
            break
        if monotonic() > deadline:
            raise SelftestError(
                f"after {timeout:.0f} s study {study} has "
                + ("no report; is `dicom-node serve` running with this configuration?" if stored is None else
                   f"a report, but not at {sorted(set(destinations) - set(done))}")
            )  # fmt: skip
        time.sleep(POLL_SECONDS)
    report = dcmread(BytesIO(files.read_report(stored.digest)))
    facts = text.facts(report)
    _judge(report, facts, study, image, active_banks)
    percentile = facts.get("percentile")
    return Passed(
        study,
        str(facts["verdict"]),
        float(str(percentile)) if percentile is not None else None,
        monotonic() - began,
        done,
    )


def _phantom(folder: Path) -> tuple[Path, str]:
    """Draw a phantom in a child process (the node does not import `training`) and give it UIDs of its own."""
    command = [sys.executable, "-m", "training", "phantoms", "--out", str(folder), "--count", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own module
    if done.returncode:
        raise SelftestError(f"no phantom could be drawn: {done.stderr.strip()[-300:]}")
    path = next(folder.glob("*.dcm"))
    phantom = dcmread(path)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(phantom, keyword, generate_uid(prefix=None))
    phantom.file_meta.MediaStorageSOPInstanceUID = phantom.SOPInstanceUID
    phantom.save_as(path)
    return path, str(phantom.StudyInstanceUID)


def _judge(
    report: Dataset, facts: Mapping[str, object], study: str, image: str, active_banks: Sequence[str]
) -> None:
    """Raise SelftestError with everything that is not as it should be."""
    faults = []
    if report.StudyInstanceUID != study:
        faults.append(f"it belongs to study {report.StudyInstanceUID}, not {study}")
    referenced = {
        str(sop.ReferencedSOPInstanceUID)
        for evidence in report.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in evidence.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
    if image not in referenced:
        faults.append("it does not reference the phantom's image")
    if report.get("PatientID", "").startswith("PHANTOM") is False:
        faults.append("it is not filed under the phantom's PatientID")
    if active_banks:
        if facts.get("score") is None:
            faults.append(f"it holds no score although a bank is active; it says {facts.get('verdict')!r}")
        elif facts.get("bank_hash") not in active_banks:
            faults.append(f"it names bank {facts.get('bank_hash')}, active is {', '.join(active_banks)}")
    if faults:
        raise SelftestError("the report is wrong: " + "; ".join(faults))
