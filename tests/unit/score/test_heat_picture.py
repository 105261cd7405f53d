from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from dicom_node.domain.types import Provenance, Score
from dicom_node.score.heat_picture import ABOVE, BANDS, NARROWEST, OUTLINE, PANEL, compose, draw, layer, overlay
from dicom_node.score.saliency import Region, Saliency

SCORE = Score(0.25, 98.0, 2.0, 0.2, True)
MADE_BY = Provenance(
    bank_hash="0" * 64, bank_name="adults", algorithm="", algorithm_version="", backbone="", head="", k=1,
    views=("squash",), false_positive_rate=0.05, normal_images=300, calibration="held-out",
    calibration_images=60, population="", site="", created_at="", weights_sha256="", weights_licence="",
    training_data="",
)  # fmt: skip


def saliency(heat: np.ndarray, above: np.ndarray, region: Region | None = None) -> Saliency:
    return Saliency(heat.astype(np.float32), above, (0, 0), 100.0, 0.05, region)


def test_colours_follow_the_calibrated_share_and_nothing_else() -> None:
    heat = np.array([[0.0, 98.9, 99.0, 99.89, 99.9, 100.0, np.nan]], dtype=np.float32)
    grey = np.full((1, 7, 3), 100, dtype=np.uint8)
    seen = overlay(grey, heat, np.zeros((1, 7), dtype=bool))[0]
    assert (seen[[0, 1, 6]] == 100).all()
    (_, yellow, faint), (_, orange, strong) = BANDS
    assert np.allclose(seen[[2, 3]], np.rint((1 - faint) * 100 + faint * np.array(yellow)))
    assert np.allclose(seen[[4, 5]], np.rint((1 - strong) * 100 + strong * np.array(orange)))
    red = overlay(grey, heat, np.ones((1, 7), dtype=bool))[0]
    assert np.allclose(red, np.rint((1 - ABOVE[1]) * 100 + ABOVE[1] * np.array(ABOVE[0])))


def test_stronger_colours_are_darker_so_that_they_read_without_hue() -> None:
    def lightness(colour: tuple[int, int, int]) -> float:
        return float(np.dot(colour, [0.2126, 0.7152, 0.0722]))

    steps = [lightness(colour) for _, colour, _ in BANDS] + [lightness(ABOVE[0])]
    assert all(one - two > 40 for one, two in pairwise(steps))


@pytest.mark.parametrize("shape", [(1200, 1000), (300, 250), (50, 400), (400, 50)])
def test_the_picture_shows_image_and_map_side_by_side(shape: tuple[int, int]) -> None:
    grey = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    content = draw(grey, saliency(np.zeros(shape), np.zeros(shape, dtype=bool)), SCORE, MADE_BY)
    with Image.open(BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 2 * NARROWEST
        pixels = np.asarray(picture.convert("RGB"))
    width = round(PANEL * shape[1] / max(shape))
    cell = max(width, NARROWEST)
    left = 20 + (cell - width) // 2
    height = round(PANEL * shape[0] / max(shape))
    one = pixels[20 : 20 + height, left : left + width]
    two = pixels[20 : 20 + height, left + cell + 20 : left + cell + 20 + width]
    assert np.array_equal(one, two)  # nothing is unusual: no colour, no outline
    assert abs(int(one.mean()) - 127) < 6


@pytest.mark.parametrize("shape", [(2500, 2048), (900, 1800), (1800, 300)])
def test_a_picture_for_a_display_object_is_no_wider_than_a_reading_station_shows(
    shape: tuple[int, int],
) -> None:
    flat = saliency(np.zeros(shape), np.zeros(shape, dtype=bool))
    picture = compose(np.full(shape, 0.5, dtype=np.float32), flat, SCORE, MADE_BY, 1280)
    assert 1260 <= picture.width <= 1280
    assert picture.height <= PANEL + 400


def test_what_is_above_the_threshold_is_red_and_outlined_at_its_place() -> None:
    heat, above = np.zeros((90, 60)), np.zeros((90, 60), dtype=bool)
    heat[30:50, 10:30], above[30:50, 10:30] = 100.0, True
    region = Region(np.array([[10.0, 30.0], [30.0, 30.0], [30.0, 50.0], [10.0, 50.0]]), 400 / 5400)
    grey = np.full((90, 60), 0.5, dtype=np.float32)
    with Image.open(BytesIO(draw(grey, saliency(heat, above, region), SCORE, MADE_BY))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    panel = pixels[20:920, 40 + 600 : 40 + 1200]
    red = (panel[:, :, 0] - panel[:, :, 1] > 60) & (panel[:, :, 0] - panel[:, :, 2] > 60)
    rows, columns = np.nonzero(red)
    assert rows.min() == pytest.approx(300, abs=6)
    assert rows.max() == pytest.approx(500, abs=6)
    assert columns.min() == pytest.approx(100, abs=6)
    assert columns.max() == pytest.approx(300, abs=6)
    assert (panel[300, 200] == OUTLINE).all()
    assert not (pixels[20:920, 20:620] == OUTLINE).all(axis=2).any()


def test_the_same_input_gives_the_same_bytes() -> None:
    grey = np.linspace(0, 1, 6400, dtype=np.float32).reshape(80, 80)
    flat = saliency(np.zeros((80, 80)), np.zeros((80, 80), dtype=bool))
    assert draw(grey, flat, SCORE, MADE_BY) == draw(grey, flat, SCORE, MADE_BY)


@pytest.mark.parametrize(
    ("shape", "size"), [((1200, 1000), (533, 640)), ((300, 250), (250, 300)), ((5, 2000), (640, 2))]
)
def test_the_layer_has_the_image_s_proportions_and_is_transparent_where_nothing_is_unusual(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    heat, above = np.full(shape, 50.0), np.zeros(shape, dtype=bool)
    heat[:, : shape[1] // 2] = 99.95
    above[:, : shape[1] // 4] = True
    with Image.open(BytesIO(layer(saliency(heat, above)))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", size)
        pixels = np.asarray(picture)
    row = pixels[pixels.shape[0] // 2]
    eighth = pixels.shape[1] // 8
    assert tuple(row[eighth, :3]) == ABOVE[0]
    assert tuple(row[3 * eighth, :3]) == BANDS[1][1]
    assert row[eighth, 3] > row[3 * eighth, 3] > 0
    assert not row[5 * eighth :, 3].any()
