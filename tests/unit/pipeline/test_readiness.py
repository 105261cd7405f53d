"""What `check` looks at ends in a finding, whatever is wrong."""

from __future__ import annotations

from pathlib import Path

from dicom_node.pipeline import readiness


def test_a_store_whose_staging_is_no_folder_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "incoming").touch()
    finding = readiness.store(tmp_path, lambda: None)
    assert not finding.ok
    assert "cannot be written" in finding.detail
    assert str(tmp_path) in finding.detail
