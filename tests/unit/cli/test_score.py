"""``score``: what it prints, and the heat map it draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.score.bank_store import BankStore
from tests.phantoms import chest, chest_dataset, part10
from tests.training.test_build import built, order


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two banks of phantoms, of which one has patches, and files to score."""
    folder = tmp_path_factory.mktemp("score")
    (folder / "in").mkdir()
    for seed in range(26):
        Image.fromarray(np.rint(chest(seed).image * 255).astype(np.uint8)).save(folder / "in" / f"{seed}.png")
    for name, patches in (("with", 60), ("without", 0)):
        built(order(folder / "in", folder / "banks", name=name, patches=patches))
    BankStore(folder / "banks").activate("with")
    (folder / "chest.dcm").write_bytes(part10(chest_dataset(seed=90)))
    (folder / "hand.dcm").write_bytes(part10(chest_dataset(seed=90, BodyPartExamined="HAND")))
    (folder / "config.toml").write_text(f'[score]\nbanks = "{folder / "banks"}"\n')
    return folder


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit code, and what was printed; on standard error if nothing else."""
    result = CliRunner().invoke(app, ["score", *arguments, "--config", str(root / "config.toml")])
    return result.exit_code, result.stdout or result.stderr


@pytest.mark.parametrize("file", ["chest.dcm", "in/3.png"])
def test_a_heat_map_is_drawn_beside_the_same_score(root: Path, tmp_path: Path, file: str) -> None:
    code, said = run(root, str(root / file), "--json", "--heatmap", str(tmp_path / "heat.png"))
    assert code == 0
    assert json.loads(said) == json.loads(run(root, str(root / file), "--json")[1])
    with Image.open(tmp_path / "heat.png") as picture:
        picture.load()
        assert (picture.format, picture.width) == ("PNG", 2 * 750 + 60)
        assert picture.height > 20 + 900


def test_the_nearest_normals_are_named_on_request_and_in_json(root: Path) -> None:
    file = str(root / "chest.dcm")
    names = json.loads(run(root, file, "--json")[1])["neighbours"]
    assert len(set(names)) == 5
    assert f"; nearest normals: {', '.join(names)}" in run(root, file, "--neighbours")[1]
    assert names[0] not in run(root, file)[1]


def test_a_bank_without_patches_says_that_it_has_no_heat_map(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    code, said = run(root, str(root / "chest.dcm"), "--bank", "without", "--heatmap", str(out))
    assert code == 1
    assert (
        "error: without cannot tell places, so there is no heat map; one needs a deep-knn bank with --patches"
        in said
    )
    assert not out.exists()


def test_a_refused_image_gets_its_reason_and_no_picture(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    code, said = run(root, str(root / "hand.dcm"), "--heatmap", str(out))
    assert code == 1
    assert "not scored (body_part)" in said
    assert not out.exists()


def test_a_heat_map_is_of_one_file_at_a_place_that_can_be_written(root: Path, tmp_path: Path) -> None:
    file = str(root / "chest.dcm")
    code, said = run(root, file, file, "--heatmap", str(tmp_path / "heat.png"))
    assert code == 2
    assert "--heatmap draws one file; 2 were given" in said
    code, said = run(root, file, "--heatmap", str(tmp_path / "nowhere" / "heat.png"))
    assert code == 2
    assert "cannot be written" in said
