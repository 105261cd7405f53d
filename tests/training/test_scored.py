from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from training.scored import (
    MOST_VALUES,
    Row,
    cases_of_folders,
    matched,
    read_cases,
    read_scores,
    subgroup_columns,
    without_other_columns,
    write_scores,
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest_is_read_with_its_labels_patients_and_subgroups(tmp_path: Path) -> None:
    cases = read_cases(
        written(tmp_path, "path,label,patient_id,sex\na.png,0,P1,F\nsub/b.png,Abnormal,P2,\nc.png,normal,,M\n")
    )
    assert [case.path for case in cases] == [tmp_path / "a.png", tmp_path / "sub" / "b.png", tmp_path / "c.png"]
    assert [case.label for case in cases] == [0, 1, 0]
    assert [case.patient for case in cases] == ["P1", "P2", ""]
    assert [case.columns for case in cases] == [{"sex": "F"}, {"sex": ""}, {"sex": "M"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.png,2\n", "line 2: label '2'"),
        ("path,label\na.png,0\nb.png,\n", "line 3: label ''"),
        ("path,sex\na.png,F\n", "label must be among them"),
        ("path,label\n", "names no image"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BankError, match=said):
        read_cases(written(tmp_path, text))


def test_two_folders_are_a_manifest_too(tmp_path: Path) -> None:
    for name in ("well/a.png", "well/deep/b.jpg", "ill/c.dcm", "ill/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    cases = cases_of_folders(tmp_path / "well", tmp_path / "ill")
    assert [(case.path.name, case.label) for case in cases] == [("a.png", 0), ("b.jpg", 0), ("c.dcm", 1)]


ROWS = [
    Row(
        "/x/a, b.png",
        0,
        "f0",
        "1",
        0.1 + 0.2,
        12.5,
        -1.0,
        0.25,
        "",
        {"file size": 7.0},
        {"sex": "F", "site": ""},
    ),
    Row("/x/c.dcm", 1, "f1", "2", refusal="view: lateral, not frontal", columns={"sex": "M", "site": "A"}),
]


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", ROWS)
    assert read_scores(tmp_path / "scores.csv") == ROWS


def test_a_foreign_table_needs_no_more_than_path_label_and_score(tmp_path: Path) -> None:
    rows = read_scores(written(tmp_path, "score,path,label\n0.5,a,0\n1e-3,b,1\n"))
    assert rows == [Row("a", 0, score=0.5), Row("b", 1, score=0.001)]
    with pytest.raises(BankError, match="line 2: 'nan' is no finite number"):
        read_scores(written(tmp_path, "score,path,label\nnan,a,0\n"))


def test_tables_are_matched_by_path_or_else_by_the_files_hash() -> None:
    rows = [Row("a", 0, "f0", score=1.0), Row("b", 1, "f1", score=2.0)]
    there = [Row("b", 1, "g1", score=20.0), Row("a", 0, "g0", score=10.0), Row("c", 0, "g2", score=30.0)]
    assert np.array_equal(matched(rows, there), [10.0, 20.0])
    moved = [Row("/other/b", 1, "f1", score=20.0), Row("/other/a", 0, "f0", score=10.0)]
    assert np.array_equal(matched(rows, moved), [10.0, 20.0])
    with pytest.raises(BankError, match="2 here, 1 of them there by path"):
        matched(rows, there[:1])
    with pytest.raises(BankError, match="1 images have another label there, first b"):
        matched(rows, [Row("a", 0, score=1.0), Row("b", 0, score=1.0)])


def test_a_column_with_too_many_values_makes_no_subgroups() -> None:
    rows = [
        Row(str(at), 0, columns={"age": str(at), "sex": "F" if at % 2 else ""}) for at in range(MOST_VALUES + 1)
    ]
    columns, warnings = subgroup_columns(rows)
    assert list(columns) == ["sex"]
    assert set(columns["sex"]) == {"F", "not stated"}
    assert "column age has 21 values" in warnings[0]
    assert [row.columns for row in without_other_columns(rows)][:2] == [{"sex": ""}, {"sex": "F"}]
    few = [Row(str(at), 0, columns={"name": f"Doe {at}"}) for at in range(6)]
    assert subgroup_columns(few)[0] == {}
