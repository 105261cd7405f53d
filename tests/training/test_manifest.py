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
        Entry(tmp_path / "x.png", hash_patient("MUELLER", KEY), "PA", 40.0),
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


def rows(tmp_path: Path, *lines: str) -> list[Entry]:
    path = tmp_path / "list.csv"
    path.write_text("\n".join(("path,patient_id,age,modality,site,split", *lines)) + "\n")
    return read_entries(path, KEY)


def test_a_csv_states_age_modality_site_and_split(tmp_path: Path) -> None:
    (entry,) = rows(tmp_path, "x.png,P,0.5,dx, St. Anna ,train")
    assert (entry.age, entry.modality, entry.site, entry.split) == (0.5, "DX", "ST. ANNA", "bank")
    assert [entry.split for entry in rows(tmp_path, "x.png,,,,,VAL", "y.png,,,,,test", "z.png,,,,,")] == [
        "calibration", "test", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["x.png,P,old,,,"], "line 2: the age cannot be read"),
        (["x.png,P,-3,,,"], "line 2: the age cannot be read"),
        (["x.png,P,,,,bank", "y.png,Q,,,,sometimes"], "line 3: split is 'sometimes'; known are: bank"),
        (["x.png,P,,,,train", "y.png,P,,,,test"], "line 3: this patient .* 'bank' before and in 'test' here"),
        (["x.png,P,,,,test", "y.png,P,,,,"], "line 3: .* 'test' before and in 'none' here"),
        (["x.png,,,,,bank", "x.png,,,,,calibration"], "line 3: .* 'calibration' here"),
    ],
)
def test_a_csv_that_contradicts_itself_is_refused_with_its_line(
    lines: list[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(BankError, match=told):
        rows(tmp_path, *lines)
