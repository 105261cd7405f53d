"""[score] method: which kinds of bank score an image, which decides, and what happens where one is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.config import Config, Eligibility, ScoreSection
from dicom_node.domain.types import ImageResult
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import write_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.manifest import BankKind, Population, Preprocessing
from dicom_node.score.salad_bank import write_salad_bank
from dicom_node.score.salad_facts import SaladFacts
from dicom_node.score.salad_network import SaladEncoder
from dicom_node.score.scorer import Analyser
from dicom_node.score.views import make_views
from tests.unit.score.builders import bank_facts, image, unit

LITE0 = load_backbone("lite0-random")
BOTH: tuple[BankKind, ...] = ("deep-knn", "salad")


def chest(seed: int = 1, **attributes: Any) -> Dataset:
    coarse = np.random.default_rng(seed).random((9, 7), dtype=np.float32)
    return image(np.rint(make_views(coarse, ("squash",), 160, 160)[0] * 4095), stored=12, **attributes)


def knn(folder: Path, population: Population | None = None) -> None:
    rng = np.random.default_rng(0)
    facts = {"name": LITE0.name, "dim": LITE0.dim, "weights_sha256": LITE0.weights_sha256}
    write_bank(
        folder,
        vectors=unit(rng.normal(size=(12, LITE0.dim))),
        head=Head(),
        calibration=Calibration.of(np.linspace(0.1, 0.2, 20)),
        images=[f"knn-{n}" for n in range(12)],
        facts=bank_facts(
            backbone=facts | {"licence": "none", "training_data": "none"},
            preprocessing=Preprocessing(size=64, resize_short=72),
            population=population or Population(),
        ),
    )


def salad(folder: Path, population: Population | None = None, **preprocessing: Any) -> None:
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SaladEncoder(32, 4, 12)
    write_salad_bank(
        folder,
        encoder=encoder,
        memory=unit(rng.normal(size=(25, 12))),
        calibration=Calibration.of(np.linspace(0.1, 0.2, 20)),
        images=[f"salad-{n}" for n in range(25)],
        facts=bank_facts(
            preprocessing=Preprocessing(size=32, resize_short=32, **preprocessing),
            k=10,
            population=population or Population(),
            salad=SaladFacts(channels=4, tau=0.1, rounds=1, epochs=1, seed=0, reconstruction="l1"),
        ),
    )


def analyser(banks: Path, *kinds: BankKind) -> Analyser:
    return Analyser(banks, Eligibility(), kinds=kinds, threads=1)


def served(result: ImageResult) -> list[str]:
    """Return the banks that measured, the one that decides first."""
    assert result.provenance is not None, result.refusal
    return [result.provenance.bank_name, *(m.provenance.bank_name for m in result.also)]


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("banks")
    knn(folder / "knn-all")
    salad(folder / "salad-all")
    salad(folder / "salad-children", Population(maximum_age=15))
    BankStore(folder).activate("salad-children", "salad-all", "knn-all")
    return folder


def test_each_method_is_scored_by_its_own_bank(banks: Path) -> None:
    assert served(analyser(banks, "deep-knn").analyse(chest())) == ["knn-all"]
    assert served(analyser(banks, "salad").analyse(chest())) == ["salad-all"]


def test_with_both_the_first_kind_decides_and_the_other_is_measured_beside_it(banks: Path) -> None:
    alone = {kind: analyser(banks, kind).analyse(chest()) for kind in BOTH}
    for kinds in (BOTH, BOTH[::-1]):
        result = analyser(banks, *kinds).analyse(chest())
        assert result.score == alone[kinds[0]].score
        assert result.provenance == alone[kinds[0]].provenance
        (beside,) = result.also
        assert (beside.score, beside.provenance) == (alone[kinds[1]].score, alone[kinds[1]].provenance)


def test_each_kind_is_routed_by_population_on_its_own(banks: Path) -> None:
    node = analyser(banks, *BOTH)
    assert served(node.analyse(chest(PatientAge="007Y"))) == ["knn-all", "salad-children"]
    assert served(node.analyse(chest(PatientAge="047Y"))) == ["knn-all", "salad-all"]


def test_without_a_bank_of_the_kind_that_decides_the_image_is_not_analysed(tmp_path: Path) -> None:
    knn(tmp_path / "knn")
    salad(tmp_path / "salad", Population(maximum_age=15))
    BankStore(tmp_path).activate("knn", "salad")
    deciding = analyser(tmp_path, "salad", "deep-knn").analyse(chest(PatientAge="047Y"))
    assert deciding.refusal is not None
    assert deciding.refusal.code == "no_bank"
    assert "no active bank of kind salad serves" in deciding.refusal.reason
    assert deciding.also == ()
    assert served(analyser(tmp_path, *BOTH).analyse(chest(PatientAge="047Y"))) == ["knn"]
    BankStore(tmp_path).activate("knn")
    missing = analyser(tmp_path, "salad").analyse(chest())
    assert missing.refusal is not None
    assert "bank build --method salad" in missing.refusal.reason


def test_each_bank_sees_the_image_as_its_own_manifest_says(tmp_path: Path) -> None:
    knn(tmp_path / "knn")
    salad(tmp_path / "plain")
    salad(tmp_path / "scaled", rescale="none")
    found = {}
    for name in ("plain", "scaled"):
        BankStore(tmp_path).activate("knn", name)
        found[name] = analyser(tmp_path, *BOTH).analyse(chest())
    assert found["plain"].score == found["scaled"].score
    assert found["plain"].also[0].score.value != found["scaled"].also[0].score.value


def test_files_are_scored_by_both_too_and_by_one_that_is_named(banks: Path, tmp_path: Path) -> None:
    node = analyser(banks, *BOTH)
    chest(6).save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert node.analyse_file(tmp_path / "x.dcm") == node.analyse(chest(6))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (140, 140), dtype=np.uint8)).save(
        tmp_path / "x.png"
    )
    # A picture has no header to route by: the first bank of each kind takes it.
    assert served(node.analyse_file(tmp_path / "x.png")) == ["knn-all", "salad-children"]
    assert served(node.analyse_file(tmp_path / "x.png", bank="salad-all")) == ["salad-all"]
    assert served(node.analyse_file(tmp_path / "x.dcm", bank="salad-all")) == ["salad-all"]


def test_an_image_that_cannot_be_decoded_is_refused_once(banks: Path) -> None:
    result = analyser(banks, *BOTH).analyse(chest(PixelData=b"\0\0"))
    assert result.refusal is not None
    assert (result.refusal.code, result.also) == ("decode", ())


def test_warming_up_loads_every_active_bank(banks: Path) -> None:
    analyser(banks, *BOTH).warm_up()


@pytest.mark.parametrize(
    ("method", "decides", "kinds"),
    [
        ("deep-knn", "salad", ("deep-knn",)),
        ("salad", "deep-knn", ("salad",)),
        ("both", "deep-knn", ("deep-knn", "salad")),
        ("both", "salad", ("salad", "deep-knn")),
        ("aligned-knn", "deep-knn", ("aligned-knn",)),
        ("all", "deep-knn", ("deep-knn", "salad", "aligned-knn")),
        ("all", "aligned-knn", ("aligned-knn", "deep-knn", "salad")),
    ],
)
def test_the_configuration_says_which_kinds_score_and_which_decides(
    method: str, decides: str, kinds: tuple[str, ...]
) -> None:
    section = Config.model_validate({"score": {"method": method, "decides": decides}}).score
    assert section.kinds == kinds
    assert ScoreSection().kinds == ("deep-knn",)


def test_the_configuration_reaches_the_analyser(banks: Path) -> None:
    section = ScoreSection(banks=banks, method="both", decides="salad", threads=1)
    assert served(Analyser.from_config(section).analyse(chest())) == ["salad-all", "knn-all"]
