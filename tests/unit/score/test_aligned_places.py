"""Heat maps of aligned-knn banks: each place against the same place of normals, and laid back over the image."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.align import IDENTITY, Placement, cut
from dicom_node.score.aligned_places import (
    Places,
    laid_back,
    load_places,
    place_distances,
    save_places,
)
from dicom_node.score.heat_scale import LEVELS, scale_of

WHOLE = (0.0, 0.0, 1.0, 1.0)
HERE = Placement(IDENTITY, 1.0)


def places(**changes: object) -> Places:
    values: dict[str, object] = {
        "normal": np.linspace(0, 1, len(LEVELS), dtype=np.float32),
        "peaks": np.array([0.4, 0.9], dtype=np.float32),
        "shift": (0.01, -0.02),
    }
    return Places(**{**values, **changes})  # type: ignore[arg-type]


def test_the_squares_of_the_places_add_up_to_the_distance_of_the_maps() -> None:
    rng = np.random.default_rng(0)
    vector, nearest = rng.normal(size=3 * 16).astype(np.float32), rng.normal(size=(5, 48)).astype(np.float32)
    field = place_distances(vector, nearest, 4)
    apart = vector - nearest.mean(axis=0)
    assert field.shape == (4, 4)
    assert np.square(field).sum() == pytest.approx(np.square(apart).sum(), rel=1e-5)
    expected = np.sqrt(sum(float(apart[channel * 16 + 2 * 4 + 1]) ** 2 for channel in range(3)))
    assert field[2, 1] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(BankError, match="no maps of 5 x 5 places"):
        place_distances(vector, nearest, 5)


@pytest.mark.parametrize("position", [IDENTITY, (0.1, -0.15, 0.12, -0.1, 0.08), (-0.2, 0.1, -0.2, 0.15, -0.1)])
def test_a_place_of_the_template_comes_back_to_where_it_was_cut_from(
    position: tuple[float, float, float, float, float],
) -> None:
    box, placement = (0.2, 0.15, 0.85, 0.9), Placement(position, 1.0)
    image = np.zeros((160, 160), dtype=np.float32)
    image[70:78, 95:103] = 1.0
    under = cut(image, placement, box, 56)
    field = under.reshape(14, 4, 14, 4).mean(axis=(1, 3))
    back = laid_back(field, placement, box, (0.0, 0.0), (320, 240))
    row, column = np.unravel_index(int(np.nanargmax(back)), back.shape)
    assert row / 320 == pytest.approx(74 / 160, abs=0.04)
    assert column / 240 == pytest.approx(99 / 160, abs=0.04)


def test_outside_of_the_box_nothing_is_said() -> None:
    back = laid_back(np.ones((4, 4), dtype=np.float32), HERE, (0.25, 0.5, 0.75, 1.0), (0.0, 0.0), (40, 20))
    assert np.isnan(back[:9]).all()
    assert np.isnan(back[:, :9]).all()
    assert (back[11:29, 11:] == 1.0).all()


def test_a_map_that_looks_elsewhere_than_it_lies_is_put_where_it_looks() -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))
    plain, moved = (laid_back(ramp, HERE, WHOLE, (0.0, shift), (40, 40)) for shift in (0.0, -0.125))
    assert moved[20, 10] == pytest.approx(plain[20, 15], abs=1e-5)


def test_what_was_written_is_read_back_and_damage_is_refused() -> None:
    again = load_places(save_places(places()))
    assert np.array_equal(again.normal, places().normal)
    assert np.array_equal(again.peaks, places().peaks)
    assert again.shift == (0.01, -0.02)
    with pytest.raises(BankError, match="cannot be read"):
        load_places(b"nothing")
    with pytest.raises(BankError, match="do not fit"):
        load_places(save_places(places(normal=np.zeros(3, dtype=np.float32))))


def test_a_scale_is_that_of_all_places_and_of_each_images_farthest() -> None:
    fields = [np.full((2, 2), value, dtype=np.float32) for value in (3.0, 1.0, 2.0)]
    fields[0][0, 0] = np.nan
    normal, peaks = scale_of(fields)
    assert peaks.tolist() == [1.0, 2.0, 3.0]
    assert (normal[0], normal[-1]) == (1.0, 3.0)
    with pytest.raises(BankError, match="no image to calibrate"):
        scale_of([])
