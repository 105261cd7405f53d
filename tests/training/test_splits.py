from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom_node.domain.errors import BankError
from tests.training.test_build import dicom, pictures
from training.cli import app
from training.manifest import read_entries
from training.splits import describe, split, write_manifest


def archive(folder: Path, patients: range) -> Path:
    folder.mkdir()
    for patient in patients:
        for number in range(2):
            seed = patient * 2 + number
            dicom(folder / f"{seed:03d}.dcm", seed, PatientID=f"MUELLER{patient}", PatientAge="045Y",
                  ViewPosition="PA", InstitutionName="Here")  # fmt: skip
    return folder


def sides(source: Path, seed: int = 0) -> dict[str, str]:
    return {one.entry.path.name: one.entry.split for one in split(describe(source, seed), 0.2, 0.2)}


def test_no_patient_stands_on_two_sides(tmp_path: Path) -> None:
    divided = split(describe(archive(tmp_path / "in", range(40)), 0), 0.2, 0.2)
    by_patient: dict[str, set[str]] = {}
    for one in divided:
        by_patient.setdefault(one.entry.patient, set()).add(one.entry.split)
    assert len(by_patient) == 40
    assert all(len(found) == 1 for found in by_patient.values())
    assert {one.entry.split for one in divided} == {"bank", "calibration", "test"}


def test_the_seed_decides_and_other_patients_change_nothing(tmp_path: Path) -> None:
    some, more = archive(tmp_path / "some", range(15)), archive(tmp_path / "more", range(40))
    assert sides(some) == sides(some)
    assert sides(some).items() <= sides(more).items()
    assert sides(more, seed=1) != sides(more)


def test_the_shares_are_kept_on_average(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number}.png").write_bytes(b"not a picture " + bytes([number % 256, number // 256]))
    placed = [one.entry.split for one in split(describe(folder, 3), 0.3, 0.1)]
    shares = [placed.count(side) / 600 for side in ("bank", "calibration", "test")]
    assert np.allclose(shares, [0.6, 0.3, 0.1], atol=0.06)


def test_the_manifest_holds_what_the_files_state_and_no_patient(tmp_path: Path) -> None:
    divided = split(describe(archive(tmp_path / "in", range(6)), 0), 0.3, 0.3)
    counts = write_manifest(tmp_path / "out.csv", divided, b"k")
    assert sum(counts.values()) == 12
    assert "MUELLER" not in (tmp_path / "out.csv").read_text()
    back = read_entries(tmp_path / "out.csv", b"x")
    assert [entry.path for entry in back] == [one.entry.path for one in divided]
    assert {(entry.view, entry.age, entry.modality, entry.site) for entry in back} == {
        ("PA", 45.0, "CR", "HERE")
    }
    assert [entry.split for entry in back] == [one.entry.split for one in divided]
    assert len({entry.patient for entry in back}) == 6


def test_pictures_are_patients_of_their_own_and_copies_stay_together(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "copy.png").write_bytes((folder / "p0000.png").read_bytes())
    described = {one.entry.path.name: one for one in describe(folder, 0)}
    assert described["copy.png"].place == described["p0000.png"].place
    assert len({one.entry.patient for one in described.values()}) == 3


def test_shares_that_leave_no_bank_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="leave nothing for the bank"):
        split(describe(pictures(tmp_path / "in", 1), 0), 0.5, 0.5)


def test_the_command_writes_a_manifest_that_a_build_takes(tmp_path: Path) -> None:
    folder, out = pictures(tmp_path / "in", 20), tmp_path / "split.csv"
    options = ["split", "--images", str(folder), "--out", str(out), "--seed", "4"]
    told = CliRunner().invoke(app, options)
    assert told.exit_code == 0
    entries = read_entries(out, b"x")
    counts = {side: sum(entry.split == side for entry in entries) for side in ("bank", "calibration", "test")}
    assert told.output == f"{out}: " + ", ".join(f"{count} {side}" for side, count in counts.items()) + "\n"
    assert CliRunner().invoke(app, [*options, "--calibration", "0.9", "--test", "0.2"]).exit_code == 1
