from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score.files import read_image
from dicom_node.score.pixels import to_grey
from tests.unit.score.builders import SHARED, image

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 4


def test_a_png_is_divided_by_its_full_range_or_stretched(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "eight.png")
    grey, ds = read_image(tmp_path / "eight.png", rescale="none")
    assert ds is None
    assert np.allclose(grey, RAMP / 255)
    stretched, _ = read_image(tmp_path / "eight.png")
    assert np.allclose(stretched, RAMP / 188)


def test_a_16_bit_png_keeps_its_depth(tmp_path: Path) -> None:
    values = (RAMP.astype(np.uint16) << 8) + 3
    Image.fromarray(values).save(tmp_path / "deep.png")
    grey, _ = read_image(tmp_path / "deep.png", rescale="none")
    assert np.allclose(grey, values / 65535)


def test_a_grey_jpeg_reads_the_same_as_rgb_and_as_grey(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "grey.jpg", quality=95)
    Image.fromarray(RAMP).convert("RGB").save(tmp_path / "rgb.jpg", quality=95)
    grey, _ = read_image(tmp_path / "grey.jpg", rescale="none")
    rgb, _ = read_image(tmp_path / "rgb.jpg", rescale="none")
    assert np.abs(grey - RAMP / 255).max() < 0.03
    assert np.abs(grey - rgb).max() < 0.02


def test_a_colour_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "red.png")
    with pytest.raises(CannotDecodeError, match="in colour"):
        read_image(tmp_path / "red.png")


def test_a_constant_huge_or_damaged_picture_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 9).save(tmp_path / "flat.png")
    with pytest.raises(CannotDecodeError, match="every pixel has the value 9"):
        read_image(tmp_path / "flat.png")
    Image.fromarray(RAMP).save(tmp_path / "ramp.png")
    with pytest.raises(CannotDecodeError, match="6 x 8 pixels; at most 47"):
        read_image(tmp_path / "ramp.png", maximum_pixels=47)
    content = (tmp_path / "ramp.png").read_bytes()
    for cut in (9, 30, len(content) - 40):
        (tmp_path / "cut.png").write_bytes(content[:cut])
        with pytest.raises(CannotDecodeError, match="cannot be decoded"):
            read_image(tmp_path / "cut.png")


def test_dicom_is_told_by_content_with_or_without_its_header(tmp_path: Path) -> None:
    expected = to_grey(image(RAMP, stored=8))
    ds = image(RAMP, stored=8)
    ds.save_as(tmp_path / "called.png", enforce_file_format=True)
    grey, read = read_image(tmp_path / "called.png")
    assert read is not None
    assert read.SOPInstanceUID == "1.2.3.4"
    assert np.array_equal(grey, expected)
    for implicit in (True, False):
        ds = image(RAMP, stored=8)
        del ds.file_meta
        ds.save_as(tmp_path / "bare", implicit_vr=implicit, little_endian=True)
        assert (tmp_path / "bare").read_bytes()[128:132] != b"DICM"
        assert np.array_equal(read_image(tmp_path / "bare")[0], expected)


@pytest.mark.parametrize("content", [b"", b"hello, this is a text file", b"\0" * 300, b"%PDF-1.7 " * 50])
def test_what_is_no_image_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.dcm").write_bytes(content)
    with pytest.raises(CannotUnderstandError, match=r"odd\.dcm"):
        read_image(tmp_path / "odd.dcm")


def test_a_file_that_is_away_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotUnderstandError, match="No such file"):
        read_image(tmp_path / "away.dcm")


@pytest.mark.data
def test_a_real_image_without_part_10_header_reads_as_the_one_with_it() -> None:
    folder = SHARED / "cxr_dicom"
    if not folder.is_dir():
        pytest.skip("shared/data/cxr_dicom is absent")
    bare, _ = read_image(folder / "fuji_cr_mono1_10bit_440_noPart10header")
    whole, _ = read_image(folder / "fuji_cr_mono1_10bit_440_implicitLE.dcm")
    assert np.array_equal(bare, whole)
