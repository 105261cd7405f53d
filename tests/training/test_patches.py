from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import load_bank
from dicom_node.score.files import read_image
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import PatchBank
from dicom_node.score.saliency import Look, distance_field, explain, resample
from tests.phantoms import chest
from tests.training.test_build import built, order, pictures
from tests.unit.score.builders import small_backbone
from tests.unit.score.patch_builders import SMALL, mapped_backbone, patches, texture
from training.patches import learn_patches


def patches_of_bank(folder: Path) -> PatchBank:
    found = load_bank(folder).patches
    assert found is not None
    return found


def test_a_bank_is_built_with_patches_that_its_own_calibration_normals_calibrate(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 40)
    built(order(folder, tmp_path / "out", calibration=0.25, patches=64))
    bank = load_bank(tmp_path / "out" / "normals")
    found = patches_of_bank(tmp_path / "out" / "normals")
    assert bank.manifest.recipe["patches"] == 64
    assert (len(found.vectors), found.references, len(found.peaks)) == (64, 30, 10)
    backbone = load_backbone("lite0-random")
    prep = bank.manifest.preprocessing
    peaks = []
    for path in sorted(folder.iterdir()):
        grey = read_image(path, window=prep.window, rescale=prep.rescale)[0]
        peaks.append(np.nanmax(distance_field(grey, found, backbone, prep)))
    for peak in found.peaks:  # each is that of an image which stands in the folder
        assert np.min(np.abs(np.array(peaks) - peak)) < 1e-4


def test_with_leave_one_out_a_fifth_of_the_bank_calibrates_the_patches(tmp_path: Path) -> None:
    built(order(pictures(tmp_path / "in", 30), tmp_path / "out", calibration="leave-one-out", patches=50))
    found = patches_of_bank(tmp_path / "out" / "normals")
    assert (found.references, len(found.peaks)) == (24, 6)


def test_a_separate_set_calibrates_the_patches_too(tmp_path: Path) -> None:
    folder, other = pictures(tmp_path / "in", 25), pictures(tmp_path / "other", 12, first=20)
    built(order(folder, tmp_path / "out", calibration_images=other, patches=50))
    found = patches_of_bank(tmp_path / "out" / "normals")
    assert (found.references, len(found.peaks)) == (25, 7)  # five of the twelve stand in the bank


def test_a_bank_without_patches_is_the_same_but_for_them(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 26)
    for patches_wanted, out in ((0, "without"), (40, "with")):
        built(order(folder, tmp_path / out, patches=patches_wanted))
    without, with_them = (load_bank(tmp_path / out / "normals") for out in ("without", "with"))
    assert without.patches is None
    assert with_them.patches is not None
    assert without.calibration.scores.tolist() == with_them.calibration.scores.tolist()
    for file, digest in without.manifest.files.items():
        assert with_them.manifest.files[file] == digest


def test_the_same_images_give_the_same_patches() -> None:
    backbone = mapped_backbone()
    one, two, other = patches(backbone), patches(backbone), patches(backbone, seed=1)
    assert np.array_equal(one.vectors, two.vectors)
    assert np.array_equal(one.normal, two.normal)
    assert not np.array_equal(one.vectors, other.vectors)


@pytest.mark.parametrize("coreset", ["greedy", "random"])
def test_patches_are_places_of_the_images_with_where_they_are(coreset: str) -> None:
    backbone = mapped_backbone()
    found = patches(backbone, coreset=coreset, count=60)
    assert found.vectors.shape == (60, 12)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-5)
    assert {tuple(p) for p in found.positions.tolist()} <= {
        tuple(place) for place in Look((0.0, 0.0, 1.0, 1.0), found.shift).centres(4, 4).tolist()
    }
    own = distance_field(texture(0), patches(backbone, count=10_000), backbone, SMALL)
    assert float(own.max()) < 0.002  # every place of an image of the bank is in it


def test_a_backbone_without_a_map_has_no_patches() -> None:
    with pytest.raises(BankError, match="small gives no map"):
        learn_patches(lambda: iter([]), lambda: iter([]), small_backbone(), SMALL)


def test_patches_need_images_on_both_sides() -> None:
    backbone = mapped_backbone()
    with pytest.raises(BankError, match="no image to take patches from"):
        learn_patches(lambda: iter([]), lambda: iter([]), backbone, SMALL)
    with pytest.raises(BankError, match="no image to calibrate"):
        learn_patches(lambda: iter([texture(0)]), lambda: iter([]), backbone, SMALL)


@pytest.fixture(scope="module")
def phantom_patches() -> PatchBank:
    return learn_patches(
        lambda: (chest(seed).image for seed in range(30)),
        lambda: (chest(seed).image for seed in range(30, 45)),
        load_backbone("lite0"),
        Preprocessing(),
        count=600,
    )


@pytest.mark.parametrize(("lesion", "least"), [("opacity", 0.93), ("nodule", 0.93), ("effusion", 0.8)])
def test_planted_lesions_are_found(lesion: str, least: float, phantom_patches: PatchBank) -> None:
    backbone, prep, hits, areas = load_backbone("lite0"), Preprocessing(), 0, []
    for seed in range(9000, 9004):
        phantom = chest(seed, lesion)  # type: ignore[arg-type]
        seen = explain(phantom.image, phantom_patches, backbone, prep, 0.05)
        away = distance_transform_edt(~phantom.mask) * phantom.spacing
        hits += bool(away[seen.peak] <= 20.0)
        field = distance_field(phantom.image, phantom_patches, backbone, prep)
        areas.append(roc_auc_score(phantom.mask.ravel(), resample(field, *phantom.image.shape).ravel()))
    assert hits >= 3
    assert np.mean(areas) >= least


def test_the_picture_of_a_build_reads_the_files_with_the_banks_own_rescale(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(25):
        Image.fromarray(np.rint(texture(seed) * 200).astype(np.uint8)).save(folder / f"{seed:02d}.png")
    prep = Preprocessing(size=64, resize_short=72, rescale="none")
    built(order(folder, tmp_path / "out", preprocessing=prep, patches=4000))
    found = patches_of_bank(tmp_path / "out" / "normals")
    backbone = load_backbone("lite0-random")
    distances = [
        float(np.nanmax(distance_field(read_image(path, rescale="none")[0], found, backbone, prep)))
        for path in sorted(folder.iterdir())
    ]
    assert sum(distance < 0.01 for distance in distances) == found.references
