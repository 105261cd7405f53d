"""An entry of a worklist of scheduled procedures, as a value. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from dicom_node.domain.expectation import Procedure
from dicom_node.domain.urgency import ROUTINE


@dataclass(frozen=True, slots=True)
class ScheduledProcedure:
    """One Scheduled Procedure Step (PS3.4 annex K). The accession number goes into a keyed hash and nowhere else."""

    key: str
    study_instance_uid: str
    accession_number: str = field(repr=False)
    due_at: datetime | None = None
    priority: int = ROUTINE
    procedure: Procedure | None = None
