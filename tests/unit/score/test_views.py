from __future__ import annotations

import numpy as np
import pytest
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.view_names import DEFAULT_VIEWS, VIEWS, draw_views, parse_views
from dicom_node.score.views import make_views, to_batch

RNG = np.random.default_rng(0)


def test_an_image_of_the_right_size_is_unchanged_under_squash() -> None:
    grey = RNG.random((32, 32), dtype=np.float32)
    assert np.array_equal(make_views(grey, ("squash",), 32, 40)[0], grey)


def test_crops_are_cut_where_their_names_say() -> None:
    grey = RNG.random((40, 60), dtype=np.float32)
    tl, tr, bl, br, centre = make_views(grey, ("tl", "tr", "bl", "br", "centre"), 32, 40)
    assert np.array_equal(tl, grey[:32, :32])
    assert np.array_equal(tr, grey[:32, -32:])
    assert np.array_equal(bl, grey[-32:, :32])
    assert np.array_equal(br, grey[-32:, -32:])
    assert np.array_equal(centre, grey[4:36, 14:46])


def test_a_flip_mirrors_left_and_right() -> None:
    grey = RNG.random((50, 70), dtype=np.float32)
    for name in VIEWS:
        if name.endswith("-flip"):
            plain, flipped = make_views(grey, (name.removesuffix("-flip"), name), 32, 40)
            assert np.array_equal(flipped, plain[:, ::-1])


def test_the_default_is_five_crops_and_their_flips_in_a_fixed_order() -> None:
    assert DEFAULT_VIEWS == (
        "tl", "tr", "bl", "br", "centre", "tl-flip", "tr-flip", "bl-flip", "br-flip", "centre-flip",
    )  # fmt: skip


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    stripes = np.zeros((512, 512), dtype=np.float32)
    stripes[:, ::2] = 1
    assert np.allclose(make_views(stripes, ("squash",), 32, 32)[0][4:-4, 4:-4], 0.5, atol=0.02)


@pytest.mark.parametrize("shape", [(7, 900), (900, 7), (33, 33), (2500, 2048)])
def test_any_shape_gives_views_in_zero_to_one_and_the_same_ones_every_time(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).random(shape, dtype=np.float32)
    views = make_views(grey, VIEWS, 32, 40)
    assert views.shape == (12, 32, 32)
    assert views.dtype == np.float32
    assert views.min() >= 0
    assert views.max() <= 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        assert np.array_equal(make_views(grey, VIEWS, 32, 40), views)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("names", [(), ("squash", "squash"), ("left",)])
def test_unknown_double_or_no_views_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(BankError, match="name each once"):
        make_views(np.zeros((9, 9), dtype=np.float32), names)


def test_a_crop_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(BankError, match="below the crop"):
        make_views(np.zeros((9, 9), dtype=np.float32), ("tl",), 32, 31)


def test_a_batch_is_normalised_in_each_channel() -> None:
    views = np.full((2, 4, 4), 0.5, dtype=np.float32)
    batch = to_batch(views, (0.5, 0.0, 0.25), (1.0, 0.5, 0.25))
    assert batch.shape == (2, 3, 4, 4)
    assert batch[0, :, 0, 0].tolist() == [0.0, 1.0, 1.0]
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_by_place_begins_where_its_name_says() -> None:
    grey = RNG.random((40, 60), dtype=np.float32)
    first, middle, last, mirrored = make_views(
        grey, ("crop-000-000", "crop-500-250", "crop-999-999", "crop-500-250-flip"), 32, 40
    )
    assert np.array_equal(first, grey[:32, :32])
    assert np.array_equal(middle, grey[4:36, 7:39])
    assert np.array_equal(last, grey[8:, 28:])
    assert np.array_equal(mirrored, middle[:, ::-1])


def test_drawn_crops_reach_every_place_about_equally_and_are_mirrored_half_the_time() -> None:
    names = draw_views(np.random.default_rng(3), 8000)
    assert len(set(names)) == 8000
    assert abs(sum(name.endswith("-flip") for name in names) / 8000 - 0.5) < 0.03
    downs = np.array([int(name.split("-")[1]) for name in names]) * 33 // 1000
    assert np.abs(np.bincount(downs, minlength=33) / 8000 * 33 - 1).max() < 0.3


def test_random_views_are_a_fixed_list_that_follows_from_the_seed() -> None:
    drawn = parse_views("squash,random:7:5")
    assert drawn == parse_views(" squash , random:7:5 ")
    assert drawn[0] == "squash"
    assert drawn[1:] == draw_views(np.random.default_rng(7), 5)
    assert parse_views("random:8:5") != drawn[1:]
    grey = RNG.random((40, 44), dtype=np.float32)
    assert np.array_equal(make_views(grey, drawn, 32, 40), make_views(grey, drawn, 32, 40))


@pytest.mark.parametrize(
    "text", ["random:7:0", "random:7", "crop-1000-000", "crop-1-1", "random:1:2,random:1:2", ""]
)
def test_a_list_of_views_that_names_none_or_one_twice_or_an_unknown_one_is_refused(text: str) -> None:
    with pytest.raises(BankError, match="name each once"):
        parse_views(text)
