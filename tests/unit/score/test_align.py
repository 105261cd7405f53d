"""Registration: known shifts, scales and turns are found again, each time the same; what cannot be, is said."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.align import IDENTITY, SIDE, Placement, cut, prepared, register
from dicom_node.score.views import make_views
from training.phantoms import make
from training.template import make_template

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def chest(seed: int, side: int = 128) -> npt.NDArray[np.float32]:
    return make_views(make(seed, shape=(160, 132)).image, ("squash",), side, side)[0]


def moved(
    image: npt.NDArray[np.float32], position: tuple[float, ...], size: int, box: tuple[float, ...] = WHOLE
) -> npt.NDArray[np.float64]:
    """Sample an image in plain numpy where a position says that the template's places are."""
    across, down, wider, higher, turn = position
    top, left, bottom, right = box
    middle = (np.arange(size) + 0.5) / size
    v, u = np.meshgrid(
        2 * (top + (bottom - top) * middle) - 1, 2 * (left + (right - left) * middle) - 1, indexing="ij"
    )
    x = math.exp(wider) * math.cos(turn) * u - math.exp(higher) * math.sin(turn) * v + across
    y = math.exp(wider) * math.sin(turn) * u + math.exp(higher) * math.cos(turn) * v + down
    last = len(image) - 1
    row, column = (np.clip((value + 1) * len(image) / 2 - 0.5, 0, last) for value in (y, x))
    above, before = (np.minimum(value.astype(int), last - 1) for value in (row, column))
    lower, later = row - above, column - before
    upper = image[above, before] * (1 - later) + image[above, before + 1] * later
    under = image[above + 1, before] * (1 - later) + image[above + 1, before + 1] * later
    return np.asarray(upper * (1 - lower) + under * lower)


@pytest.mark.parametrize(
    "position",
    [
        (0.12, 0.0, 0.0, 0.0, 0.0),
        (0.0, -0.15, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.12, 0.0, 0.0),
        (0.0, 0.0, 0.0, -0.12, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.15),
        (0.06, -0.05, 0.08, -0.06, -0.08),
    ],
)
def test_a_known_shift_scale_or_turn_is_found_again(position: tuple[float, ...]) -> None:
    image = chest(3)
    template = prepared(moved(image, position, 128).astype(np.float32)[None])[0, 0].numpy()
    (found,) = register(image[None], template)
    assert found.note == ""
    assert found.position == pytest.approx(position, abs=0.012)
    assert found.likeness > 0.97


def test_the_cut_shows_what_lies_under_the_box_stretched_to_its_range() -> None:
    image, position, box = chest(4, 48), (0.05, -0.1, 0.1, -0.05, 0.07), (0.1, 0.2, 0.8, 0.9)
    seen = cut(image, Placement(position, 1.0), box, 32)
    expected = moved(image, position, 32, box)
    low, high = np.percentile(expected, [1, 99])
    assert seen == pytest.approx(np.clip((expected - low) / (high - low), 0, 1), abs=1e-5)
    assert (seen.dtype, seen.min(), seen.max()) == (np.float32, 0.0, 1.0)


def test_an_image_is_placed_the_same_whatever_shares_its_batch_and_however_often() -> None:
    images = np.stack([chest(seed) for seed in range(6)])
    template = make_template(lambda rows: images[list(rows)], 6, 0)
    together = register(images, template)
    assert together == register(images, template)
    assert together == [register(image[None], template)[0] for image in images]
    assert np.array_equal(template, make_template(lambda rows: images[list(rows)], 6, 0))


def test_brightness_and_contrast_of_the_exposure_do_not_move_it() -> None:
    images = np.stack([chest(seed) for seed in range(4)])
    template = make_template(lambda rows: images[list(rows)], 4, 0)
    plain, darker = register(images, template), register(images * np.float32(0.7) + np.float32(0.1), template)
    for one, other in zip(plain, darker, strict=True):
        assert one.position == pytest.approx(other.position, abs=0.02)


def test_normals_lie_closer_to_each_other_over_the_template() -> None:
    images = np.stack([chest(seed) for seed in range(12)])
    template = make_template(lambda rows: images[list(rows)], 12, 0)
    placed = register(images, template)
    assert not any(one.note for one in placed)
    over = np.stack([cut(image, one, WHOLE, 64) for image, one in zip(images, placed, strict=True)])
    as_they_lie = np.stack([cut(image, Placement(IDENTITY, 0.0), WHOLE, 64) for image in images])
    assert over.std(axis=0).mean() < 0.95 * as_they_lie.std(axis=0).mean()
    # The template lies as the average image does: positions that make it stand around the identity.
    assert np.abs(np.mean([one.position for one in placed], axis=0)).max() < 0.03


@pytest.mark.parametrize("kind", ["constant", "noise", "far away"])
def test_what_is_no_chest_stays_as_it_lies_and_says_why(kind: str) -> None:
    images = np.stack([chest(seed) for seed in range(6)])
    template = make_template(lambda rows: images[list(rows)], 6, 0)
    noise = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    far = np.full((128, 128), 0.5, dtype=np.float32)
    far[:24, :24] = chest(1, 24)
    image = {"constant": np.full_like(noise, 0.5), "noise": noise, "far away": far}[kind]
    (found,) = register(image[None], template)
    assert found.position == IDENTITY
    assert "template" in found.note or "position" in found.note
    assert np.isfinite(cut(image, found, WHOLE, 64)).all()


def test_a_template_of_another_size_is_refused() -> None:
    with pytest.raises(BankError, match=r"the template is \(32, 32\); \(64, 64\) is right"):
        register(chest(0)[None], np.zeros((SIDE // 2, SIDE // 2)))
