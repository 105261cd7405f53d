"""A RIS for tests: DCMTK's wlmscpfs, and the folder of worklist files that it answers from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.ae import ApplicationEntity

from tests.peers import dcmtk, free_port


class Ris:
    """A folder of worklist files, and the server that answers from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "RIS"
        self.folder.mkdir(parents=True)
        (self.folder / "lockfile").touch()
        self.port = free_port()
        command = [dcmtk("wlmscpfs"), "-dfp", str(folder), "-dfr", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up(self) -> bool:
        """Return whether it answers, once it does or has ended."""
        entity = ApplicationEntity("TEST")
        entity.add_requested_context("1.2.840.10008.1.1")
        for _ in range(200):
            association = entity.associate("127.0.0.1", self.port, ae_title="RIS")
            if association.is_established:
                association.release()
                return True
            if self.process.poll() is not None:
                return False
        return False

    def schedule(
        self,
        name: str,
        study: str,
        *,
        accession: str = "A1",
        priority: str = "",
        modality: str = "DX",
        at: datetime | None = None,
    ) -> None:
        """Schedule a chest image; by default for five past midnight of today."""
        at = (at or datetime.now(UTC).astimezone().replace(hour=0, minute=5, second=0)).astimezone()
        step = Dataset()
        step.Modality, step.ScheduledStationAETitle = modality, "CR1"
        step.ScheduledProcedureStepStartDate = at.strftime("%Y%m%d")
        step.ScheduledProcedureStepStartTime = at.strftime("%H%M%S")
        step.ScheduledProcedureStepID, step.ScheduledProcedureStepDescription = name, "Chest"
        step.ScheduledPerformingPhysicianName = "Hidden^Doctor"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "36643-5", "LN", "XR Chest 2 Views"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            "1.2.276.0.7230010.3.1.0.1",
            f"{study}.1",
        )
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.PatientName, ds.PatientID = "Hidden^Person", "SECRET"
        ds.PatientBirthDate, ds.PatientSex = "19500101", "O"
        ds.AccessionNumber, ds.StudyInstanceUID = accession, study
        ds.RequestedProcedureID, ds.RequestedProcedureDescription = name, "Chest"
        ds.RequestedProcedurePriority = priority
        ds.RequestedProcedureCodeSequence, ds.ScheduledProcedureStepSequence = [code], [step]
        ds.save_as(self.folder / f"{name}.wl", enforce_file_format=True)

    def cancel(self, name: str) -> None:
        """Take a procedure off the list."""
        (self.folder / f"{name}.wl").unlink()


@contextmanager
def ris(folder: Path) -> Iterator[Ris]:
    """Run one; skips the test where DCMTK is not installed."""
    server = Ris(folder)
    try:
        assert server.up()
        yield server
    finally:
        server.process.kill()
        server.process.wait()
