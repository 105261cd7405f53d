"""What `check` looks at ends in a finding, whatever is wrong."""

from __future__ import annotations

from pathlib import Path

from dicom_node.pipeline import readiness
from dicom_node.pipeline.health import Health


def test_a_store_whose_staging_is_no_folder_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "incoming").touch()
    finding = readiness.store(tmp_path, lambda: None)
    assert not finding.ok
    assert "cannot be written" in finding.detail
    assert str(tmp_path) in finding.detail


def test_what_waits_and_what_failed_is_told_and_keeps_nothing_from_starting() -> None:
    seen = Health(
        {("analyse", "SCHEDULED"): 2, ("deliver", "IN_PROGRESS"): 1, ("deliver", "FAILED"): 4}, 5 * 10**9, 61.0
    )
    finding = readiness.queue(seen)
    assert finding.ok
    assert finding.detail == (
        "3 items wait, the oldest for 61 s; 4 failed and wait for a person; 5.0 GB are free in the store"
    )
