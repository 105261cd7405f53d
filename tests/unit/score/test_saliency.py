from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import PatchBank
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import (
    FIELD,
    Look,
    Saliency,
    convex_outline,
    distance_field,
    explain,
    find_region,
    lay_over,
    resample,
    see,
)
from dicom_node.score.views import make_views, view_box
from tests.unit.score.builders import small_backbone
from tests.unit.score.patch_builders import patches, texture, tiled_backbone

BACKBONE = tiled_backbone()
MEDIUM = Preprocessing(size=128, resize_short=160)
"""A map of 8 x 8: a cell is an eighth of the image's side."""

PATCHES = patches(BACKBONE, MEDIUM)
WHOLE = Look((0.0, 0.0, 1.0, 1.0))


def planted(row: float, column: float, height: int = 128, width: int = 96, size: float = 0.2) -> Grey:
    """Return a texture with a bright box of `size` of the image around this place, in shares of the image."""
    image = texture(500, height, width)
    down, across = size * height / 2, size * width / 2
    y, x = row * height, column * width
    image[int(y - down) : int(y + down), int(x - across) : int(x + across)] = 1.0
    return image


def explained(image: Grey, bank: PatchBank = PATCHES) -> Saliency:
    return explain(image, bank, BACKBONE, MEDIUM, 0.1)


@pytest.mark.parametrize("shape", [(128, 96), (96, 128), (300, 100), (64, 64)])
@pytest.mark.parametrize("place", [(0.25, 0.25), (0.25, 0.75), (0.75, 0.3), (0.5, 0.5)])
def test_a_lesion_lights_up_where_it_is_whatever_the_shape(
    place: tuple[float, float], shape: tuple[int, int]
) -> None:
    seen = explained(planted(*place, *shape))
    assert seen.heat.shape == shape
    assert seen.heat.dtype == np.float32
    assert seen.peak[0] / shape[0] == pytest.approx(place[0], abs=0.17)
    assert seen.peak[1] / shape[1] == pytest.approx(place[1], abs=0.17)
    assert seen.peak_percentile == 100.0
    assert seen.region is not None
    middle = seen.region.outline.mean(axis=0) / [shape[1], shape[0]]
    assert middle == pytest.approx([place[1], place[0]], abs=0.17)


def test_a_mirrored_view_is_turned_back() -> None:
    bank = patches(BACKBONE, MEDIUM, views=("squash-flip",))
    row, column = explained(planted(0.3, 0.25), bank).peak
    assert (row / 128, column / 96) == (pytest.approx(0.3, abs=0.17), pytest.approx(0.25, abs=0.17))


def test_crops_look_where_they_are_cut_and_nowhere_else() -> None:
    bank = patches(
        BACKBONE, MEDIUM, views=("br",)
    )  # short side 160: the last 128 of 213 rows and of 160 columns
    seen = explained(planted(0.7, 0.6), bank)
    assert seen.peak[0] / 128 == pytest.approx(0.7, abs=0.17)
    assert seen.peak[1] / 96 == pytest.approx(0.6, abs=0.17)
    assert np.isnan(seen.heat[:40]).all()
    assert np.isnan(seen.heat[:, :15]).all()
    assert not np.isnan(seen.heat[60:, 25:]).any()


def test_the_same_image_gives_the_same_map() -> None:
    image = planted(0.4, 0.4)
    assert np.array_equal(explained(image).heat, explained(image.copy()).heat)


def test_heat_is_calibrated_on_normals_and_not_stretched_to_the_image() -> None:
    fields = [distance_field(texture(seed), PATCHES, BACKBONE, MEDIUM) for seed in range(100, 110)]
    heat = PATCHES.percentile(np.stack(fields))
    for share in (50.0, 90.0, 99.0):
        assert float((heat >= share).mean()) == pytest.approx(1 - share / 100, abs=0.01)
    normal, sick = explained(texture(300)), explained(planted(0.5, 0.5))
    assert (normal.heat >= 99.0).mean() < 0.1
    assert (sick.heat >= 99.0).mean() > (normal.heat >= 99.0).mean()


def test_the_share_of_normals_with_a_region_is_the_stated_one() -> None:
    found = [explained(texture(seed)).region is not None for seed in range(100, 110)]
    assert sum(found) == 1  # 0.1 of the ten that calibrated


def test_other_stages_are_refused() -> None:
    with pytest.raises(BankError, match="small gives no map"):
        explain(texture(0), PATCHES, small_backbone(), MEDIUM, 0.05)


@pytest.mark.parametrize("view", ["squash", "tl", "tr", "bl", "br", "centre", "crop-300-700", "tl-flip"])
@pytest.mark.parametrize("shape", [(128, 96), (90, 200)])
def test_a_views_box_is_where_it_was_cut(view: str, shape: tuple[int, int]) -> None:
    height, width = shape
    rows = np.repeat(((np.arange(height) + 0.5) / height)[:, None], width, axis=1).astype(np.float32)
    columns = np.repeat(((np.arange(width) + 0.5) / width)[None], height, axis=0).astype(np.float32)
    top, left, bottom, right = view_box(view, height, width, 64, 80)
    for ramp, low, high, axis in ((rows, top, bottom, 0), (columns, left, right, 1)):
        cut = make_views(ramp, [view.removesuffix("-flip")], 64, 80)[0]
        along = cut.mean(axis=1 - axis)[4:-4]
        expected = (low + (high - low) * (np.arange(64) + 0.5) / 64)[4:-4]
        assert np.allclose(along, expected, atol=0.5 / min(shape))


def test_places_of_an_image_are_at_the_centres_of_its_cells() -> None:
    places, grid, looks = see(texture(0), ("squash", "br"), (0.0, 0.0), BACKBONE, MEDIUM)
    assert grid == (8, 8)
    assert looks[0] == WHOLE
    assert places.positions[0] == pytest.approx([1 / 16, 1 / 16])
    assert places.positions[63] == pytest.approx([15 / 16, 15 / 16])
    top, left, bottom, right = looks[1].box
    assert places.positions[64] == pytest.approx([top + (bottom - top) / 16, left + (right - left) / 16])


def test_a_map_laid_over_the_image_is_linear_between_its_centres() -> None:
    field = lay_over(np.array([[[0.0, 1.0], [0.0, 1.0]]], dtype=np.float32), [WHOLE], side=8)
    assert field[3] == pytest.approx([0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0])


def test_a_map_that_looks_elsewhere_than_it_lies_is_put_where_it_looks() -> None:
    ramp = np.array([[[0.0, 1.0, 2.0, 3.0]] * 4], dtype=np.float32)
    shifted = lay_over(ramp, [Look(WHOLE.box, (0.0, -0.125))], side=8)
    assert shifted[3] == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0])
    places, _, looks = see(texture(0), ("squash", "squash-flip"), (0.1, -0.125), BACKBONE, MEDIUM)
    assert places.positions[0] == pytest.approx([0.0625 + 0.1, 0.0625 - 0.125])
    assert places.positions[64] == pytest.approx([0.0625 + 0.1, 0.0625 + 0.125])
    assert looks[1].shift == (0.1, 0.125)


def test_overlapping_views_count_alike_and_what_none_sees_stays_empty() -> None:
    maps = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 3.0)]).astype(np.float32)
    field = lay_over(maps, [Look((0.0, 0.0, 0.5, 1.0)), Look((0.25, 0.0, 0.75, 1.0))], side=8)
    assert field[:, 0] == pytest.approx([1, 1, 2, 2, 3, 3, np.nan, np.nan], nan_ok=True)
    assert np.isnan(resample(field, 16, 16)[14:]).all()


def test_resampling_keeps_a_constant_and_a_place() -> None:
    assert np.allclose(resample(np.full((FIELD, FIELD), 0.7, dtype=np.float32), 91, 33), 0.7)
    field = np.zeros((8, 8), dtype=np.float32)
    field[2, 5] = 1.0
    row, column = np.unravel_index(resample(field, 80, 40).argmax(), (80, 40))
    assert 20 <= row < 30
    assert 25 <= column < 30


def test_the_largest_of_several_areas_is_the_region() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[1:3, 1:3] = True
    mask[10:15, 20:28] = True
    region = find_region(mask)
    assert region is not None
    assert region.area == pytest.approx(40 / 600)
    assert {tuple(point) for point in region.outline.tolist()} == {(20, 10), (28, 10), (28, 15), (20, 15)}
    assert find_region(np.zeros((3, 3), dtype=bool)) is None


def test_an_outline_holds_every_pixel_and_runs_clockwise() -> None:
    y, x = np.mgrid[:40, :40]
    mask = (y - 20) ** 2 + (x - 15) ** 2 < 81
    outline = convex_outline(mask)
    ahead = np.roll(outline, -1, axis=0)
    for row, column in zip(*np.nonzero(mask), strict=True):
        sides = (ahead[:, 0] - outline[:, 0]) * (row + 0.5 - outline[:, 1])
        sides -= (ahead[:, 1] - outline[:, 1]) * (column + 0.5 - outline[:, 0])
        assert (sides > 0).all()  # rows grow downwards: inside is to the right of a clockwise walk
    assert np.allclose(convex_outline(np.ones((1, 1), dtype=bool)).mean(axis=0), 0.5)
