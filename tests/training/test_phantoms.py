"""Phantoms: procedural chests that are what they say they are."""

from __future__ import annotations

import csv
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter

from tests.peers import require
from tests.phantoms import AT, chest, chest_dataset
from training.phantom_anatomy import cavity, silhouette
from training.phantom_canvas import Canvas
from training.phantom_dicom import to_dicom
from training.phantom_person import person
from training.phantoms import LESIONS, make
from training.phantoms_cli import run

SHAPE = (256, 210)
SEEDS = (0, 3, 4)


def lungs_and_centre(seed: int) -> tuple[np.ndarray, np.ndarray]:
    who = person(seed)
    canvas = Canvas(SHAPE, tilt=who.tilt, shift=who.shift, zoom=who.zoom)
    middle = canvas.fill(*silhouette(who)) > 0.5
    inside = canvas.fill(cavity(who, -1), cavity(who, 1)) > 0.5
    return inside & ~binary_dilation(middle, iterations=3), middle & inside


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = make(5, lesion="opacity", shape=SHAPE), make(5, lesion="opacity", shape=SHAPE)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()


@pytest.mark.parametrize("shape", [(64, 64), (200, 333), (333, 200), (1024, 840)])
def test_an_image_has_the_shape_asked_for_and_lies_between_0_and_1(shape: tuple[int, int]) -> None:
    phantom = make(2, lesion="effusion", shape=shape)
    assert phantom.image.shape == phantom.mask.shape == shape
    assert phantom.image.dtype == np.float32
    assert phantom.mask.dtype == np.bool_
    assert np.isfinite(phantom.image).all()
    assert 0.0 <= phantom.image.min() < 0.1
    assert 0.7 < phantom.image.max() <= 1.0
    assert phantom.mask.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_are_darker_than_the_mediastinum_and_lighter_than_the_air_beside_the_body(seed: int) -> None:
    image = chest(seed, None, SHAPE).image
    lungs, centre = lungs_and_centre(seed)
    assert image[lungs].mean() + 0.25 < image[centre].mean()
    assert image[lungs].mean() > np.percentile(image, 1) + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_heart_lies_mostly_on_the_patients_left_which_is_the_images_right(seed: int) -> None:
    who = person(seed)
    heart = silhouette(who)[0]
    left, right = heart[:, 0].max(), -heart[:, 0].min()
    assert left > 1.4 * right
    ratio = (left + right) / (2 * float(who.wall(28.0)))
    assert 0.38 < ratio < 0.55


@pytest.mark.parametrize("seed", SEEDS)
def test_cardiomegaly_is_a_heart_of_more_than_half_the_thorax(seed: int) -> None:
    normal, big = chest(seed, None, SHAPE), chest(seed, "cardiomegaly", SHAPE)
    who = person(seed)
    canvas = Canvas(SHAPE, tilt=who.tilt, shift=who.shift, zoom=who.zoom)
    columns = np.flatnonzero((big.mask | (canvas.fill(silhouette(who)[0]) > 0.5)).any(axis=0))
    assert np.ptp(columns) / canvas.per_cm / (2 * float(who.wall(28.0))) > 0.5
    assert (big.image - normal.image)[big.mask].mean() > 0.1


def test_a_normal_phantom_has_an_empty_mask() -> None:
    phantom = chest(4, None, SHAPE)
    assert phantom.lesion is None
    assert not phantom.mask.any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lesion", LESIONS)
def test_the_mask_is_where_the_image_became_denser(lesion: str, seed: int) -> None:
    with_lesion, without = chest(seed, lesion, SHAPE), chest(seed, None, SHAPE)
    gained = with_lesion.image - without.image
    outside = ~binary_dilation(with_lesion.mask, iterations=round(0.05 * SHAPE[0]))
    assert gained[with_lesion.mask].mean() > 0.06
    assert gained[with_lesion.mask].mean() > 10 * np.abs(gained[outside]).mean()
    brightest = gaussian_filter(gained, 2)
    assert with_lesion.mask[np.unravel_index(brightest.argmax(), SHAPE)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lesion", ["opacity", "nodule", "effusion"])
def test_with_and_without_lesion_a_seed_differs_only_around_the_mask(lesion: str, seed: int) -> None:
    with_lesion, without = chest(seed, lesion, SHAPE), chest(seed, None, SHAPE)
    change = np.abs(with_lesion.image - without.image)
    outside = ~binary_dilation(with_lesion.mask, iterations=round(0.1 * SHAPE[0]))
    assert change[outside].max() < 0.04
    assert change[outside].mean() < 0.004


@pytest.mark.parametrize("lesion", LESIONS)
def test_a_stronger_lesion_changes_more(lesion: str) -> None:
    normal = chest(7, None, SHAPE).image
    weak, strong = (
        np.abs(make(7, lesion=lesion, strength=s, shape=SHAPE).image - normal).sum() for s in (0.4, 1.0)
    )
    assert strong > 1.3 * weak


def test_a_lesion_lies_elsewhere_in_the_next_seed() -> None:
    centres = [np.argwhere(chest(seed, "nodule", SHAPE).mask).mean(axis=0) for seed in range(6)]
    spread = np.std(centres, axis=0)
    assert (spread > 0.04 * np.array(SHAPE)).all()


def test_people_differ_by_more_than_noise() -> None:
    smooth = [gaussian_filter(chest(seed, None, SHAPE).image, 4) for seed in range(6)]
    differences = [np.abs(a - b).mean() for i, a in enumerate(smooth) for b in smooth[:i]]
    assert min(differences) > 0.015
    assert np.median(differences) > 0.04
    assert len({person(seed).female for seed in range(10)}) == 2


def test_size_is_a_matter_of_sampling_not_of_anatomy() -> None:
    small = chest(4, None, SHAPE).image
    large = make(4, shape=(1024, 840)).image.reshape(256, 4, 210, 4).mean(axis=(1, 3))
    difference = gaussian_filter(large - small, 2)
    assert np.abs(difference).mean() < 0.012


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1, "lesion": "fracture"}, "must be one of opacity"),
        ({"seed": 1, "shape": (32, 400)}, "at least 64 rows"),
        ({"seed": 1, "strength": 0.0}, "above 0"),
        ({"seed": 1, "strength": float("nan")}, "above 0"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_would_be_right(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("form", ["dx", "cr", "sc"])
def test_dciodvfy_finds_no_error(form: str, photometric: str, tmp_path: Path) -> None:
    program = require("dciodvfy")
    path = tmp_path / "phantom.dcm"
    chest_dataset(form=form, photometric=photometric).save_as(path, enforce_file_format=True)
    result = subprocess.run([program, path], capture_output=True, text=True, check=False)
    said = result.stdout + result.stderr
    expected = {"dx": "DXImageForPresentation", "cr": "CRImage", "sc": "SCImage"}[form]
    assert expected in said
    assert "Error" not in said, said


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_stored_pixels_are_the_picture(photometric: str, bits: int) -> None:
    phantom = chest(3, "nodule", (101, 85))
    dataset = to_dicom(phantom, at=AT, photometric=photometric, bits=bits)
    values = dataset.pixel_array / (2**bits - 1)
    shown = 1.0 - values if photometric == "MONOCHROME1" else values
    assert np.abs(shown - phantom.image).max() <= 0.5 / (2**bits - 1) + 1e-6
    assert len(dataset.PixelData) % 2 == 0


def test_an_object_says_that_it_is_no_person() -> None:
    dataset = chest_dataset(seed=12, lesion="opacity")
    assert dataset.PatientID == "PHANTOM-12"
    assert str(dataset.PatientName) == "Phantom^Seed12"
    assert "not a person" in dataset.StudyDescription
    assert "not a person" in dataset.ImageComments
    assert dataset.BurnedInAnnotation == "NO"
    assert (dataset.BodyPartExamined, dataset.ViewPosition) == ("CHEST", "PA")


def test_identifiers_follow_from_what_is_shown() -> None:
    again = [chest_dataset(seed=1, form="cr") for _ in range(2)]
    assert again[0].SOPInstanceUID == again[1].SOPInstanceUID
    others = [
        chest_dataset(seed=1),
        chest_dataset(seed=2),
        chest_dataset(seed=1, lesion="nodule"),
        chest_dataset(seed=1, form="cr"),
        chest_dataset(seed=1, photometric="MONOCHROME1"),
        chest_dataset(seed=1, shape=(128, 128)),
    ]
    assert len({d.SOPInstanceUID for d in others}) == len(others)
    assert all(pydicom.uid.UID(d.SOPInstanceUID).is_valid for d in others)
    assert others[0].StudyInstanceUID == others[3].StudyInstanceUID
    assert others[0].StudyInstanceUID != others[2].StudyInstanceUID


def test_identifiers_and_names_can_be_given() -> None:
    given = {"study_instance_uid": "1.2", "series_instance_uid": "1.3", "sop_instance_uid": "1.4"}
    dataset = to_dicom(chest(), at=AT, patient_name="山田^太郎", patient_id="7", **given)
    assert (str(dataset.PatientName), dataset.PatientID) == ("山田^太郎", "7")
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == (
        "1.2",
        "1.3",
        "1.4",
    )
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.4"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        to_dicom(chest(), at=datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_a_folder_of_dicom_phantoms_has_one_study_each_and_a_manifest(tmp_path: Path) -> None:
    paths = run(tmp_path / "out", 3, 20, "effusion", "cr", (128, 105))
    read = [pydicom.dcmread(path) for path in paths]
    assert len({d.StudyInstanceUID for d in read}) == 3
    assert {d.Modality for d in read} == {"CR"}
    with (tmp_path / "out" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [path.name for path in paths]
    assert (
        [row["patient_id"] for row in rows]
        == [d.PatientID for d in read]
        == [f"PHANTOM-{n}" for n in (20, 21, 22)]
    )
    assert {row["lesion"] for row in rows} == {"effusion"}


def test_a_folder_of_pictures_has_its_contact_sheet_beside_it(tmp_path: Path) -> None:
    paths = run(tmp_path / "out", 7, 0, None, "png", (128, 105))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [p.name for p in paths]
    assert np.asarray(Image.open(paths[0])).shape == (128, 105)
    assert np.asarray(Image.open(tmp_path / "out-sheet.png")).shape == (2 * 256, 6 * 210)


def test_a_run_again_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, 1, 4, shape=(128, 105))[0].read_bytes() for name in ("a", "b"))
    assert first == second
