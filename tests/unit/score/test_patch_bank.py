from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import PATCHES, load_bank, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.heat_scale import LEVELS
from dicom_node.score.patch_bank import PatchBank, Places, load_patches, patches_of, save_patches
from tests.unit.score.builders import bank_facts, unit


def patch_bank(count: int = 30, dim: int = 5, weight: float = 2.0, seed: int = 0) -> PatchBank:
    rng = np.random.default_rng(seed)
    return PatchBank(
        vectors=unit(rng.normal(size=(count, dim))),
        positions=rng.random((count, 2), dtype=np.float32),
        normal=np.linspace(0.0, 1.0, len(LEVELS), dtype=np.float32),
        peaks=np.linspace(0.1, 1.0, 10, dtype=np.float32),
        stage="stage",
        views=("squash",),
        shift=(0.01, -0.02),
        position_weight=weight,
        coreset="greedy",
        seed=3,
        references=7,
    )


def write(folder: Path, patches: PatchBank | None) -> str:
    manifest = write_bank(
        folder,
        vectors=unit(np.random.default_rng(0).normal(size=(12, 24))),
        head=Head(),
        calibration=Calibration.of(np.linspace(0.1, 0.2, 20)),
        images=[f"image-{number}" for number in range(12)],
        facts=bank_facts(),
        patches=patches,
    )
    return manifest.bank_hash


def same(one: PatchBank, two: PatchBank) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(PatchBank))


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_distance_is_that_of_the_formula(weight: float) -> None:
    bank, rng = patch_bank(weight=weight), np.random.default_rng(1)
    places = Places(unit(rng.normal(size=(300, 5))), rng.random((300, 2), dtype=np.float32))
    expected = [
        min(
            np.sqrt(np.sum((f - g) ** 2) + weight**2 * np.sum((p - q) ** 2))
            for g, q in zip(bank.vectors.astype(float), bank.positions.astype(float), strict=True)
        )
        for f, p in zip(places.vectors.astype(float), places.positions.astype(float), strict=True)
    ]
    assert np.allclose(bank.distances(places), expected, atol=1e-5)


def test_a_patch_of_the_bank_is_near_at_its_place_and_far_elsewhere() -> None:
    one = replace(patch_bank(1), positions=np.array([[0.25, 0.25]], dtype=np.float32))
    places = Places(np.repeat(one.vectors, 2, axis=0), np.array([[0.25, 0.25], [0.25, 0.75]], dtype=np.float32))
    assert one.distances(places) == pytest.approx([0.0, 1.0], abs=1e-3)
    assert replace(one, position_weight=0.0).distances(places) == pytest.approx([0.0, 0.0], abs=1e-3)


def test_places_are_taken_row_by_row_and_have_unit_length() -> None:
    maps = np.arange(1, 2 * 3 * 2 * 2 + 1, dtype=np.float32).reshape(2, 3, 2, 2)
    flat = patches_of(maps)
    assert flat.shape == (8, 3)
    assert np.allclose(flat[1], maps[0, :, 0, 1] / np.linalg.norm(maps[0, :, 0, 1]))
    assert np.allclose(np.linalg.norm(flat, axis=1), 1.0)


def test_a_place_without_features_stays_zero_and_one_that_is_not_finite_is_an_error() -> None:
    maps = np.zeros((1, 3, 1, 1), dtype=np.float32)
    assert (patches_of(maps) == 0.0).all()
    maps[0, 0] = np.nan
    with pytest.raises(BankError, match="not finite"):
        patches_of(maps)


def test_a_percentile_is_the_share_of_normal_places_below() -> None:
    normal = np.random.default_rng(0).gamma(2.0, size=20_000)
    bank = replace(patch_bank(), normal=np.quantile(normal, LEVELS).astype(np.float32))
    for share in (2.0, 50.0, 95.0, 99.0, 99.9):
        distance = np.float32(np.percentile(normal, share))
        assert float(bank.percentile(distance)) == pytest.approx(share, abs=0.5 if share < 90 else 0.02)
    assert float(bank.percentile(normal.max() + 1)) == 100.0
    assert float(bank.percentile(np.float32(-1.0))) == 0.0


def test_the_threshold_is_exceeded_in_the_stated_share_of_normals() -> None:
    bank = patch_bank()  # ten peaks from 0.1 to 1.0
    assert bank.peak_threshold(0.2) == pytest.approx(0.8)
    assert bank.peak_threshold(0.05) == pytest.approx(1.0)
    assert bank.peak_percentile(0.55) == 50.0
    assert bank.peak_percentile(2.0) == 100.0


def test_a_bank_brings_its_patches_back_and_its_hash_covers_them(tmp_path: Path) -> None:
    hashes = {
        write(tmp_path / name / "one", it) for name, it in (("a", patch_bank()), ("b", patch_bank(seed=1)))
    }
    hashes.add(write(tmp_path / "c" / "one", None))
    assert len(hashes) == 3
    again = load_bank(tmp_path / "a" / "one").patches
    assert again is not None
    assert same(again, patch_bank())
    assert load_bank(tmp_path / "c" / "one").patches is None
    assert not (tmp_path / "c" / "one" / PATCHES).exists()


def test_a_damaged_patch_file_stops_the_load_and_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one", patch_bank())
    path = tmp_path / "one" / PATCHES
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(BankError, match=rf"{PATCHES} has SHA-256 [0-9a-f]{{64}}; the manifest says"):
        load_bank(tmp_path / "one")
    path.unlink()
    with pytest.raises(BankError, match=f"{PATCHES} cannot be read"):
        load_bank(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"positions": np.zeros((29, 2), dtype=np.float32)}, "do not fit"),
        ({"normal": np.zeros(5, dtype=np.float32)}, "do not fit"),
        ({"peaks": np.zeros(0, dtype=np.float32)}, "do not fit"),
        ({"views": ()}, "do not fit"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], seen: str) -> None:
    with pytest.raises(BankError, match=seen):
        load_patches(save_patches(replace(patch_bank(), **change)))  # type: ignore[arg-type]


def test_what_is_no_patch_file_is_refused() -> None:
    with pytest.raises(BankError, match="cannot be read"):
        load_patches(b"nothing")


def test_places_of_another_network_are_refused() -> None:
    places = Places(np.zeros((1, 6), dtype=np.float32), np.zeros((1, 2), dtype=np.float32))
    with pytest.raises(BankError, match="5 features; the image's have 6"):
        patch_bank().distances(places)
