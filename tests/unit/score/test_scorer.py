from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.config import Eligibility, ScoreSection
from dicom_node.domain.errors import BankError
from dicom_node.domain.types import ImageResult
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import load_bank, write_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.manifest import Manifest, Population, Preprocessing
from dicom_node.score.patch_bank import PatchBank
from dicom_node.score.pixels import to_grey
from dicom_node.score.scorer import Analyser
from dicom_node.score.scoring import Scorer, embed_views
from dicom_node.score.views import make_views
from tests.unit.score.builders import bank_facts, image, small_backbone, unit

VIEWS = ("squash", "tl", "squash-flip")
PREP = Preprocessing(size=64, resize_short=72)
LITE0 = load_backbone("lite0-random")


def chest(seed: int, **attributes: Any) -> Dataset:
    """Return a CR of smooth random blobs: real input for a real backbone, though no chest."""
    coarse = np.random.default_rng(seed).random((9, 7), dtype=np.float32)
    smooth = make_views(coarse, ("squash",), 160, 160)[0]
    return image(np.rint(smooth * 4095), stored=12, **attributes)


def build(
    root: Path,
    name: str,
    seeds: range,
    population: Population | None = None,
    patches: PatchBank | None = None,
    **changes: Any,
) -> Manifest:
    """Write a bank of real embeddings of `seeds`, calibrated on twenty others."""

    def embed(which: range) -> np.ndarray:
        views = np.stack([make_views(to_grey(chest(s)), VIEWS, PREP.size, PREP.resize_short) for s in which])
        return unit(embed_views(LITE0, views, PREP))

    facts = bank_facts(
        backbone={
            "name": LITE0.name,
            "dim": LITE0.dim,
            "weights_sha256": LITE0.weights_sha256,
            "licence": LITE0.licence,
            "training_data": LITE0.training_data,
        },
        preprocessing=PREP,
        views=VIEWS,
        population=population or Population(description="blobs", site="here"),
        **changes,
    )
    return write_bank(
        root / name,
        vectors=embed(seeds).reshape(-1, LITE0.dim),
        head=Head(),
        calibration=Calibration.of(np.linspace(1e-6, 1e-3, 20)),
        images=[f"seed-{seed}" for seed in seeds],
        facts=facts,
        patches=patches,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("banks")
    build(folder, "one", range(8))
    build(folder, "two", range(20, 28), k=2)
    build(folder, "children", range(8), Population(maximum_age=15))
    build(folder, "lateral-dx", range(8), Population(modalities=("DX",), views=("PA",)))
    return folder


@pytest.fixture
def banks(root: Path, tmp_path: Path) -> Path:
    """A folder of its own with all banks and none active."""
    for bank in root.iterdir():
        if bank.is_dir():
            (tmp_path / "banks" / bank.name).mkdir(parents=True)
            for file in bank.iterdir():
                (tmp_path / "banks" / bank.name / file.name).hardlink_to(file)
    return tmp_path / "banks"


def analyser(banks: Path) -> Analyser:
    return Analyser(banks, Eligibility(), threads=1)


def test_a_score_is_the_geometric_mean_of_the_kth_distances_by_hand(root: Path) -> None:
    bank = load_bank(root / "two")
    scorer = Scorer(bank, LITE0)
    grey = to_grey(chest(99))
    score = scorer.score_images([grey])[0]
    views = make_views(grey, VIEWS, PREP.size, PREP.resize_short)
    queries = unit(embed_views(LITE0, views[None], PREP)[0])
    stored = bank.index.reconstruct_batch(np.arange(24))
    squared = ((queries[:, None].astype(float) - stored[None].astype(float)) ** 2).sum(axis=2)
    second = np.sort(squared, axis=1)[:, 1]
    assert np.allclose(score.view_distances, second, atol=1e-6)
    assert score.value == pytest.approx(np.prod(second) ** (1 / 3), rel=1e-4)
    assert score.above == (score.value > score.threshold)
    assert score.percentile == 100 * np.mean(bank.calibration.scores < score.value)
    nearest = squared.min(axis=0).reshape(8, 3).min(axis=1).argsort()[:5]
    assert score.neighbours == tuple(f"seed-{20 + at}" for at in nearest)


def test_an_image_of_the_bank_is_nearest_to_itself_and_not_above_threshold(root: Path) -> None:
    scorer = Scorer(load_bank(root / "one"), LITE0)
    score = scorer.score_images([to_grey(chest(3))])[0]
    assert score.neighbours[0] == "seed-3"
    assert score.value < 2e-6
    assert not score.above
    assert score.percentile <= 5


def test_several_images_are_scored_as_each_alone(root: Path) -> None:
    scorer = Scorer(load_bank(root / "one"), LITE0)
    greys = [to_grey(chest(seed)) for seed in range(50, 54)]
    together = scorer.score_images(greys)
    alone = [scorer.score_images([grey])[0] for grey in greys]
    assert np.allclose([s.value for s in together], [s.value for s in alone], atol=1e-5)
    assert [s.neighbours[0] for s in together] == [s.neighbours[0] for s in alone]
    assert scorer.score_images([]) == []
    assert scorer.score_images([greys[0]]) == [alone[0]]


def test_another_backbone_than_the_banks_is_refused(root: Path) -> None:
    with pytest.raises(BankError, match="was made with lite0-random"):
        Scorer(load_bank(root / "one"), small_backbone())


def test_without_an_active_bank_an_image_is_not_analysed_and_the_reason_says_what_to_do(banks: Path) -> None:
    result = analyser(banks).analyse(chest(1))
    assert result.refusal is not None
    assert result.refusal.code == "no_bank"
    assert "bank build" in result.refusal.reason
    assert (result.sop_instance_uid, result.series_instance_uid) == ("1.2.3.4", "1.2.3")


def test_an_analysis_carries_score_and_provenance_and_repeats_exactly(banks: Path) -> None:
    BankStore(banks).activate("one")
    first, second = analyser(banks).analyse(chest(40)), analyser(banks).analyse(chest(40))
    assert first == second
    assert first.score is not None
    assert first.refusal is None
    assert first.provenance is not None
    assert first.provenance.bank_hash == load_bank(banks / "one").bank_hash
    assert (first.provenance.k, first.provenance.views, first.provenance.site) == (1, VIEWS, "here")


def test_ineligible_and_undecodable_images_are_refused_with_their_codes(banks: Path) -> None:
    BankStore(banks).activate("one")
    node = analyser(banks)
    codes = [
        node.analyse(ds).refusal
        for ds in (chest(1, Modality="MG"), chest(1, PixelData=b"\0\0"), chest(1, ViewPosition="LL"))
    ]
    assert [refusal.code for refusal in codes if refusal] == ["modality", "decode", "view"]


def test_warming_up_loads_the_active_bank_and_changes_no_score(banks: Path) -> None:
    store, node = BankStore(banks), analyser(banks)
    node.warm_up()
    store.activate("one")
    expected = analyser(banks).analyse(chest(40))
    node.warm_up()
    (banks / "one" / "index.faiss").unlink()
    assert node.analyse(chest(40)) == expected


def test_activation_takes_effect_with_the_next_image(banks: Path) -> None:
    store, node = BankStore(banks), analyser(banks)
    seen = []
    for name in ("one", "two", "one"):
        store.activate(name)
        provenance = node.analyse(chest(5)).provenance
        assert provenance is not None
        seen.append(provenance.bank_name)
    assert seen == ["one", "two", "one"]


def test_who_loads_banks_ahead_of_an_image_is_told_when_others_are_active(banks: Path) -> None:
    store, node = BankStore(banks), analyser(banks)
    store.activate("one")
    assert node.changed()
    node.warm_up()
    assert not node.changed()
    store.activate("two")
    assert node.changed()


def test_a_bank_that_is_named_scores_alone_whatever_is_active(banks: Path) -> None:
    store, node = BankStore(banks), analyser(banks)
    store.activate("one")
    assert [node.changed(), node.changed("two")] == [True, True]
    node.warm_up("two")
    assert [node.changed(), node.changed("two"), node.changed("one")] == [True, False, True]
    named = node.analyse(chest(5), "two")
    assert named.provenance is not None
    assert (named.provenance.bank_name, named.also) == ("two", ())
    store.activate("two")
    assert node.analyse(chest(5)) == named


def test_a_named_bank_of_another_population_scores_nothing_and_says_so(banks: Path) -> None:
    refusal = analyser(banks).analyse(chest(5, PatientAge="045Y"), "children").refusal
    assert refusal is not None
    assert refusal.code == "no_bank"
    assert refusal.reason.startswith("bank children, which was asked for, does not serve modality CR, view ")
    assert "45" not in refusal.reason


def test_a_named_bank_that_is_damaged_or_was_replaced_is_never_scored_with_as_it_was(banks: Path) -> None:
    node = analyser(banks)
    first = node.analyse(chest(5), "one")
    (banks / "one").rename(banks / "gone")
    assert node.changed("one")
    with pytest.raises(BankError, match="bank one"):
        node.analyse(chest(5), "one")
    build(banks, "one", range(30, 38))
    second = node.analyse(chest(5), "one")
    assert first.provenance is not None
    assert second.provenance is not None
    assert first.provenance.bank_hash != second.provenance.bank_hash


def test_an_image_goes_to_the_first_bank_whose_population_admits_it(banks: Path) -> None:
    BankStore(banks).activate("children", "lateral-dx")
    node = analyser(banks)

    def served(**attributes: Any) -> str:
        result = node.analyse(chest(5, **attributes))
        return result.provenance.bank_name if result.provenance else result.refusal.code  # type: ignore[union-attr]

    assert served(PatientAge="007Y") == "children"
    assert served(PatientBirthDate="20200101", StudyDate="20260101") == "children"
    assert served(Modality="DX", ViewPosition="PA", PatientAge="045Y") == "lateral-dx"
    assert served(Modality="CR", PatientAge="045Y") == "no_bank"
    assert served(Modality="CR") == "no_bank"


def test_the_reason_for_no_bank_names_no_patient_attribute(banks: Path) -> None:
    BankStore(banks).activate("children")
    refusal = analyser(banks).analyse(chest(5, PatientAge="045Y", PatientBirthDate="19700101")).refusal
    assert refusal is not None
    assert "45" not in refusal.reason
    assert "1970" not in refusal.reason
    assert "children" in refusal.reason


def test_a_bank_that_changed_after_its_activation_scores_nothing(banks: Path) -> None:
    BankStore(banks).activate("one")
    for file in (banks / "one").iterdir():
        file.unlink()
    (banks / "one").rmdir()
    build(banks, "one", range(30, 38))
    with pytest.raises(BankError, match="was activated"):
        analyser(banks).analyse(chest(5))


def test_files_are_scored_by_the_same_path(banks: Path, tmp_path: Path) -> None:
    BankStore(banks).activate("one")
    node = analyser(banks)
    ds = chest(6)
    ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    whole = node.analyse(ds)
    assert node.analyse_file(tmp_path / "x.dcm") == whole
    Image.fromarray(np.rint(to_grey(ds) * 65535).astype(np.uint16)).save(tmp_path / "x.png")
    picture = node.analyse_file(tmp_path / "x.png")
    assert picture.score is not None
    assert whole.score is not None
    assert picture.score.value == pytest.approx(whole.score.value, abs=1e-4)
    named = node.analyse_file(tmp_path / "x.png", bank="two")
    assert named.provenance is not None
    assert named.provenance.bank_name == "two"
    (tmp_path / "x.txt").write_text("no image")
    refused = node.analyse_file(tmp_path / "x.txt")
    assert refused.refusal is not None
    assert refused.refusal.code == "decode"
    with pytest.raises(BankError, match="bank three"):
        node.analyse_file(tmp_path / "x.png", bank="three")


def test_threads_score_at_once_and_agree(banks: Path) -> None:
    BankStore(banks).activate("one")
    node = Analyser.from_config(ScoreSection(banks=banks, threads=1))
    expected = node.analyse(chest(7))
    results: list[ImageResult] = []
    threads = [threading.Thread(target=lambda: results.append(node.analyse(chest(7)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_the_configured_limit_of_megapixels_is_kept(banks: Path) -> None:
    BankStore(banks).activate("one")
    node = Analyser.from_config(ScoreSection(banks=banks, threads=1, maximum_megapixels=0.02))
    refusal = node.analyse(chest(7)).refusal
    assert refusal is not None
    assert refusal.code == "decode"
    assert "at most 20000" in refusal.reason
