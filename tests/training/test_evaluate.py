"""An evaluation from end to end: phantoms, a real bank, and scikit-learn asked directly."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from typer.testing import CliRunner

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.bank import load_bank
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.scorer import Analyser
from training import phantoms_cli
from training.build import Order, build
from training.cli import app
from training.evaluate import Facts, Question, evaluate, judge_rows
from training.score_cases import SHARD
from training.scored import Row, read_cases, read_scores

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIDE = (80, 66)
RULES = Eligibility(minimum_pixels=64)


def silent(_: int) -> None:
    return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bank of phantoms and a manifest of others, some with a planted lesion."""
    root = tmp_path_factory.mktemp("site")
    phantoms_cli.run(root / "normals", 30, seed=0, form="png", shape=SIDE)
    order = Order(
        images=root / "normals",
        out=root / "banks",
        backbone="lite0-random",
        views=("squash",),
        preprocessing=Preprocessing(size=64, resize_short=72),
        calibration=0.3,
        false_positive_rate=0.2,
    )
    build(order, created_at=AT, started=silent, progress=silent)
    well = phantoms_cli.run(root / "well", 24, seed=100, form="png", shape=SIDE)
    ill = phantoms_cli.run(root / "ill", 12, seed=200, form="png", shape=SIDE, lesion="opacity", strength=2.0)
    dicom = phantoms_cli.run(root / "dicom", 2, seed=300, form="dx", shape=SIDE)
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "patient_id", "label", "sex", "born"])
        for at, path in enumerate(well + ill):
            rows.writerow(
                [
                    path.relative_to(root),
                    f"SECRET{at // 2}",
                    int(path in ill),
                    "FM"[at % 2],
                    f"SECRET born {at}",
                ]
            )
        for path in dicom:
            rows.writerow([path.relative_to(root), "", 0, "F", "SECRET"])
        rows.writerow(["missing.png", "", 1, "F", ""])
    return root


@pytest.fixture(scope="module")
def result(site: Path) -> dict[str, Any]:
    question = Question(
        out=site / "out",
        bank=site / "banks" / "normals",
        cases=read_cases(site / "manifest.csv"),
        prevalences=(0.1,),
        draws=200,
        rules=RULES,
    )
    return evaluate(question, at=AT, started=silent, progress=silent)


def test_the_figures_are_scikit_learns_on_the_scores_it_wrote(site: Path, result: dict[str, Any]) -> None:
    rows = [row for row in read_scores(site / "out" / "scores.csv") if row.score is not None]
    labels, scores = [row.label for row in rows], [row.score for row in rows]
    assert result["images"]["abnormal"] == sum(labels) == 12
    assert result["auroc"]["value"] == pytest.approx(roc_auc_score(labels, scores))
    assert result["auroc"]["low"] <= result["auroc"]["value"] <= result["auroc"]["high"]
    assert result["average_precision"]["value"] == pytest.approx(average_precision_score(labels, scores))
    false_rate, true_rate, _ = roc_curve(labels, scores)
    for wanted in ("0.95", "0.98", "0.99"):
        best = 1 - min(f for f, t in zip(false_rate, true_rate, strict=True) if t >= float(wanted))
        assert result["specificity_at_sensitivity"][wanted] == pytest.approx(best)
    point = result["threshold"]
    called = np.array(scores) > load_bank(site / "banks" / "normals").manifest.threshold
    assert point["sensitivity"]["value"] == called[np.array(labels) == 1].mean()
    assert point["specificity"]["value"] == 1 - called[np.array(labels) == 0].mean()


def test_every_score_is_the_one_the_node_gives(site: Path, result: dict[str, Any]) -> None:
    node = Analyser(site / "banks", RULES, threads=1)
    rows = read_scores(site / "out" / "scores.csv")
    for row in rows[::7]:
        seen = node.analyse_file(Path(row.path), "normals").score
        assert seen is not None
        assert (row.score, row.percentile) == pytest.approx((seen.value, seen.percentile), rel=1e-5)
        assert row.z_score == pytest.approx(seen.z_score, abs=1e-3)
        assert row.threshold == seen.threshold


def test_what_could_not_be_read_is_counted_and_not_scored(site: Path, result: dict[str, Any]) -> None:
    assert result["images"]["not_analysed"]["abnormal"] == 1
    assert result["images"]["not_analysed"]["reasons"]["decode"] == 1
    assert read_scores(site / "out" / "scores.csv")[-1].score is None


def test_no_identifier_of_a_patient_is_written_and_a_patients_images_stay_together(
    site: Path, result: dict[str, Any]
) -> None:
    for file in (site / "out").iterdir():
        assert b"SECRET" not in file.read_bytes(), file.name
        assert b"PHANTOM-" not in file.read_bytes(), file.name
    patients = [row.patient for row in read_scores(site / "out" / "scores.csv")]
    assert patients[:6] == ["1", "1", "2", "2", "3", "3"]
    assert patients[36:] == ["19", "20", ""]


def test_subgroups_controls_and_predictive_values_are_there(result: dict[str, Any]) -> None:
    assert [(s["column"], s["value"]) for s in result["subgroups"]] == [("sex", "F"), ("sex", "M")]
    assert [c["name"] for c in result["controls"]] == ["file size", "mean grey", "sharpness"]
    assert all(c["auroc"]["value"] >= 0.5 for c in result["controls"])
    assert [p["prevalence"] for p in result["predictive_values"]] == [0.1]
    assert sum(result["percentiles_of_normals"]["deciles"]) == pytest.approx(1.0)


def test_every_plot_is_a_picture_with_something_in_it(site: Path, result: dict[str, Any]) -> None:
    names = {"roc.png", "pr.png", "scores.png", "percentiles.png", "auroc.png", "errors.png"}
    assert set(result["plots"]) == names
    page = (site / "out" / "evaluation.html").read_text("utf-8")
    for name in names:
        with Image.open(site / "out" / name) as image:
            grey = np.asarray(image.convert("L"), dtype=float)
        assert min(grey.shape) > 200
        assert 0.002 < (grey < 200).mean() < 0.7, name
        assert f'src="{name}"' in page
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", page) == []


def test_table_and_page_say_what_the_data_says(site: Path, result: dict[str, Any]) -> None:
    assert json.loads((site / "out" / "evaluation.json").read_bytes()) == result
    table = (site / "out" / "evaluation.md").read_text("utf-8")
    page = (site / "out" / "evaluation.html").read_text("utf-8")
    for text in (table, page):
        assert f"{result['auroc']['value']:.3f}" in text
        assert "Not a medical device" in text
        assert result["bank"]["bank_hash"] in text
    assert page.count("<table>") == page.count("</table>") == 4


def test_an_interrupted_scoring_goes_on_and_gives_the_same(site: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(_: int) -> None:
        raise KilledError

    cases = read_cases(site / "manifest.csv")
    assert len(cases) > SHARD
    question = Question(out=tmp_path, bank=site / "banks" / "normals", cases=cases, draws=100, rules=RULES)
    with pytest.raises(KilledError):
        evaluate(question, at=AT, started=silent, progress=kill)
    (first,) = (tmp_path / ".work").glob("*.json")
    kept = json.loads(first.read_bytes())
    kept[0]["score"] = 0.123456
    first.write_text(json.dumps(kept))
    evaluate(question, at=AT, started=silent, progress=silent)
    rows = read_scores(tmp_path / "scores.csv")
    assert rows[0].score == 0.123456, "the finished shard was not scored again"
    assert rows[1:] == read_scores(site / "out" / "scores.csv")[1:]
    assert not (tmp_path / ".work").exists()


def test_the_command_judges_a_table_against_another(site: Path, result: dict[str, Any], tmp_path: Path) -> None:
    rows = read_scores(site / "out" / "scores.csv")
    other = tmp_path / "other.csv"
    lines = [
        "path,label,score",
        *(f"{r.path},{r.label},{r.label + 0.1 * at}" for at, r in enumerate(rows) if r.score),
    ]
    other.write_text("\n".join(lines))
    options = ["--scores", site / "out" / "scores.csv", "--against", other, "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, options), "--bootstrap", "200", "--json"])
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    for key in ("auroc", "average_precision", "threshold", "subgroups", "controls"):
        assert again[key] == result[key]
    assert again["bank"] is None
    found = again["against"]["difference_auroc"]
    assert found["value"] == pytest.approx(result["auroc"]["value"] - again["against"]["auroc"])
    assert (tmp_path / "out" / "against.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "either --bank and images, or --scores"),
        (["--bank", "b"], "either --images, or both"),
        (["--bank", "b", "--normal", "n"], "either --images, or both"),
        (["--scores", "s", "--images", "i"], "leave out --images"),
        (["--scores", "s", "--prevalence", "1.5"], "--prevalence is 1.5"),
    ],
)
def test_options_that_do_not_go_together_are_unusable(tmp_path: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--out", str(tmp_path), *options])
    assert done.exit_code == 2
    assert said in done.stderr


def test_one_class_alone_cannot_be_judged(tmp_path: Path) -> None:
    rows = [Row(str(at), 0, score=float(at)) for at in range(3)]
    with pytest.raises(BankError, match="3 normal and 0 abnormal"):
        judge_rows(rows, None, Facts(), Question(out=tmp_path))


def test_images_that_stand_in_the_bank_are_warned_of(tmp_path: Path) -> None:
    rows = [Row(str(at), at % 2, f"f{at}", score=float(at)) for at in range(6)]
    found = judge_rows(
        rows, None, Facts(images=frozenset({"f0", "f5", "f9"})), Question(out=tmp_path, draws=100)
    )
    assert found["images"]["in_bank"] == 2
    assert "2 of the images stand in the bank itself" in found["warnings"][0] + found["warnings"][-1]
