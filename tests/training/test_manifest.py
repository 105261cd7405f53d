from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.domain.errors import BankError
from training.manifest import Entry, hash_patient, read_entries

KEY = b"k" * 32


def test_a_folder_gives_its_images_sorted_and_leaves_hidden_and_other_files_out(tmp_path: Path) -> None:
    for name in (
        "b.PNG",
        "a.dcm",
        "sub/c.jpeg",
        "noext",
        "DICOMDIR",
        ".hidden/x.png",
        "notes.txt",
        "table.csv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(entry.path.relative_to(tmp_path)) for entry in read_entries(tmp_path, KEY)]
    assert found == ["a.dcm", "b.PNG", "noext", "sub/c.jpeg"]


def test_a_csv_gives_patients_as_hashes_and_each_file_once(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "path,patient_id,study,view,age\nx.png,MUELLER,s1,pa,40\ny.png,,s2,,\nz.png,,,,\nx.png,MUELLER,s1,pa,40\n"
    )
    assert read_entries(path, KEY) == [
        Entry(tmp_path / "x.png", hash_patient("MUELLER", KEY), "PA"),
        Entry(tmp_path / "y.png", hash_patient("s2", KEY)),
        Entry(tmp_path / "z.png"),
    ]
    assert "MUELLER" not in repr(read_entries(path, KEY))


def test_a_patient_hash_depends_on_the_key() -> None:
    assert hash_patient(" P1 ", KEY) == hash_patient("P1", KEY)
    assert hash_patient("P1", KEY) != hash_patient("P1", b"x" * 32)
    assert hash_patient("P1", KEY) != hash_patient("P2", KEY)


def test_sources_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file\nx.png\n")
    (tmp_path / "empty").mkdir()
    for source, seen in (("list.csv", "must be called path"), ("empty", "holds no"), ("away", "neither")):
        with pytest.raises(BankError, match=seen):
            read_entries(tmp_path / source, KEY)
