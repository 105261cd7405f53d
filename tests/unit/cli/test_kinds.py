"""Banks of both kinds on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.pipeline import readiness
from dicom_node.score.bank_store import BankStore
from tests.unit.score.test_scorer_kinds import knn, salad


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration whose folder of banks holds one of each kind, none active."""
    knn(tmp_path / "banks" / "knn")
    salad(tmp_path / "banks" / "salad")
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{tmp_path / "store"}"\nreserve_megabytes = 0\n[db]\nurl = "sqlite:///{tmp_path}/n.db"\n'
        f'[score]\nbanks = "{tmp_path / "banks"}"\nmethod = "both"\ndecides = "salad"\nthreads = 1\n',
        encoding="utf-8",
    )
    return path


def run(site: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--config", str(site)])
    return result.exit_code, result.stdout


def test_banks_of_both_kinds_are_activated_together_and_both_score(site: Path, tmp_path: Path) -> None:
    code, said = run(site, "bank", "activate", "knn", "salad")
    assert code == 0
    assert [line.split(";")[0] for line in said.splitlines()] == ["knn is active", "salad is active"]
    store = BankStore(tmp_path / "banks")
    assert store.active() == ("knn", "salad")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (140, 140), dtype=np.uint8)).save(
        tmp_path / "x.png"
    )
    code, said = run(site, "score", str(tmp_path / "x.png"), "--json")
    assert code == 0
    line = json.loads(said)
    hashes = store.active_hashes()
    assert line["bank"] == hashes["salad"]
    assert [beside["bank"] for beside in line["also"]] == [hashes["knn"]]
    assert "; beside it knn: " in run(site, "score", str(tmp_path / "x.png"))[1]


def test_check_misses_a_kind_of_bank_that_the_method_asks_for(site: Path, tmp_path: Path) -> None:
    run(site, "bank", "activate", "knn")
    code, said = run(site, "check")
    assert code == 1
    assert "FAIL bank of kind salad" in said
    run(site, "bank", "activate", "salad", "knn")
    assert all(finding.ok for finding in readiness.banks(tmp_path / "banks", ("salad", "deep-knn")))
    assert "FAIL bank" not in run(site, "check")[1]


@pytest.mark.parametrize(("kind", "command"), [("salad", "train-salad"), ("aligned-knn", "build-aligned")])
def test_a_bank_of_another_kind_is_built_by_its_own_command(
    kind: str, command: str, site: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _ = run(site, "bank", "build", "--method", kind, "--no-such-option")
    assert code == 2
    assert f"Usage: python -m training {command}" in capfd.readouterr().err
