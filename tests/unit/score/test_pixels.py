from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.domain.errors import CannotDecodeError
from dicom_node.score.pixels import _NO_MEMORY, assumptions, decode, to_grey
from tests.unit.score.builders import SHARED, image

RAMP = np.array([[0, 1, 2], [3, 4, 5]])
THIRDS = RAMP / 5


def grey(ds: Dataset, **options: object) -> list[list[float]]:
    out = to_grey(ds, **options)  # type: ignore[arg-type]
    assert out.dtype == np.float32
    assert out.min() >= 0
    assert out.max() <= 1
    return out.tolist()


@pytest.mark.parametrize("stored", range(8, 17))
def test_every_depth_from_8_to_16_bits_spans_zero_to_one(stored: int) -> None:
    top = 2**stored - 1
    assert grey(image([[0, top // 3, top]], stored=stored)) == [[0, pytest.approx(1 / 3, abs=2 / top), 1]]


def test_monochrome1_is_inverted() -> None:
    assert np.allclose(grey(image(RAMP, PhotometricInterpretation="MONOCHROME1")), 1 - THIRDS)


def test_an_inverse_presentation_lut_shape_inverts_once_also_beside_monochrome1() -> None:
    assert np.allclose(grey(image(RAMP, PresentationLUTShape="INVERSE")), 1 - THIRDS)
    both = image(RAMP, PresentationLUTShape="INVERSE", PhotometricInterpretation="MONOCHROME1")
    assert np.allclose(grey(both), 1 - THIRDS)


def test_a_missing_photometric_tag_is_taken_as_monochrome2_and_noted() -> None:
    ds = image(RAMP, PhotometricInterpretation=None)
    assert np.allclose(grey(ds), THIRDS)
    assert assumptions(ds) == ("Photometric Interpretation is missing: taken as MONOCHROME2",)
    assert assumptions(image(RAMP)) == ()


def test_signed_pixels_keep_their_order() -> None:
    ds = image(RAMP - 3, signed=True, stored=12)
    assert np.allclose(grey(ds), THIRDS)
    assert decode(ds).tolist() == (RAMP - 3).tolist()


def test_a_negative_rescale_slope_turns_the_order_round() -> None:
    assert np.allclose(grey(image(RAMP, RescaleSlope="-2", RescaleIntercept="7")), 1 - THIRDS)


def test_a_modality_lut_maps_stored_values() -> None:
    item = Dataset()
    item.LUTDescriptor = [6, 0, 16]
    item.LUTData = [0, 0, 10, 20, 30, 40]
    ds = image(RAMP, ModalityLUTSequence=[item])
    assert np.allclose(grey(ds), [[0, 0, 0.25], [0.5, 0.75, 1]])


def test_padding_takes_no_part_in_the_range_and_becomes_black() -> None:
    values = [[60000, 10, 20], [30, 60000, 20]]
    ds = image(values, PixelPaddingValue=60000)
    assert np.allclose(grey(ds), [[0, 0, 0.5], [1, 0, 0.5]])
    ds.PhotometricInterpretation = "MONOCHROME1"
    assert np.allclose(grey(ds), [[0, 1, 0.5], [0, 0, 0.5]])


def test_a_padding_range_is_masked_whole() -> None:
    ds = image([[0, 3, 5], [10, 15, 20]], PixelPaddingValue=0, PixelPaddingRangeLimit=5)
    assert np.allclose(grey(ds), [[0, 0, 0], [0, 0.5, 1]])


def test_a_padding_value_written_unsigned_beside_signed_pixels_is_understood() -> None:
    ds = image([[-2000, 0, 50, 100]], signed=True)
    ds.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert np.allclose(grey(ds), [[0, 0, 0.5, 1]])


def test_bits_outside_bits_stored_do_not_count() -> None:
    overlay = RAMP | 0xF000
    assert np.allclose(grey(image(overlay, stored=12)), THIRDS)


def test_a_high_bit_above_the_lowest_bits_is_shifted_down() -> None:
    assert np.allclose(grey(image(RAMP << 4, stored=12, HighBit=15)), THIRDS)
    signed = image((RAMP - 3) << 4, stored=12, signed=True, HighBit=15)
    assert decode(signed).tolist() == (RAMP - 3).tolist()


def test_the_window_is_applied_only_when_asked() -> None:
    ds = image([[0, 25, 50, 75, 100]], WindowCenter="50", WindowWidth="51")
    assert np.allclose(grey(ds), [[0, 0.25, 0.5, 0.75, 1]])
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5), clipped
    assert np.allclose(grey(ds, window="voi"), [[0, 0.01, 0.51, 1, 1]])


def test_of_several_windows_the_first_counts_and_exact_linear_and_sigmoid_are_known() -> None:
    ds = image([[0, 25, 50, 75, 100]], WindowCenter=["50", "7"], WindowWidth=["50", "3"])
    ds.VOILUTFunction = "LINEAR_EXACT"
    assert np.allclose(grey(ds, window="voi"), [[0, 0, 0.5, 1, 1]])
    ds.VOILUTFunction = "SIGMOID"
    sigmoid = 1 / (1 + np.exp(-4 * (np.array([0, 25, 50, 75, 100]) - 50) / 50))
    assert np.allclose(grey(ds, window="voi", rescale="none"), [sigmoid], atol=1e-6)


def test_a_voi_lut_maps_values_and_an_image_without_one_is_left_alone() -> None:
    item = Dataset()
    item.LUTDescriptor = [6, 0, 8]
    item.LUTData = [255, 0, 51, 102, 153, 204]
    ds = image(RAMP, VOILUTSequence=[item])
    assert np.allclose(grey(ds, window="voi", rescale="none"), np.array([[255, 0, 51], [102, 153, 204]]) / 255)
    assert np.allclose(grey(image(RAMP), window="voi"), THIRDS)


def test_without_rescale_the_range_is_that_of_bits_stored() -> None:
    assert np.allclose(
        grey(image([[0, 1023, 4095 // 2]], stored=12), rescale="none"), [[0, 0.2498, 0.4999]], atol=1e-3
    )
    signed = image([[-128, 0, 127]], stored=8, signed=True)
    assert np.allclose(grey(signed, rescale="none"), [[0, 128 / 255, 1]])


def test_rgb_that_is_grey_becomes_its_luminance_and_colour_is_refused() -> None:
    same = np.repeat(np.array([[0, 100, 200]])[..., None], 3, axis=2)
    assert np.allclose(grey(image(same, stored=8)), [[0, 0.5, 1]])
    same[0, 1] = (200, 0, 0)
    with pytest.raises(CannotDecodeError, match="in colour"):
        to_grey(image(same, stored=8))


@pytest.mark.parametrize(
    ("ds", "seen"),
    [
        (image(np.full((2, 2), 7)), "every pixel has the value 7"),
        (image([[9, 9], [9, 9]], PixelPaddingValue=9), "nothing is left"),
        (image(RAMP, PixelData=b""), "no Pixel Data"),
        (image(RAMP, PixelData=b"\0\1"), "cannot be decoded"),
        (image(RAMP, Rows=0), "Rows is missing or 0"),
        (image(RAMP, NumberOfFrames=3), "Number of Frames is 3"),
        (image(RAMP, BitsAllocated=32, BitsStored=32, HighBit=31), "32 allocated"),
        (image(RAMP, RescaleSlope="0", RescaleIntercept="1"), "Rescale Slope is 0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_was_seen(ds: Dataset, seen: str) -> None:
    with pytest.raises(CannotDecodeError, match=rf"1\.2\.3\.4'?: .*{seen}"):
        to_grey(ds)


def test_more_pixels_than_the_limit_are_not_decoded() -> None:
    assert decode(image(RAMP), maximum_pixels=6).shape == (2, 3)
    with pytest.raises(CannotDecodeError, match="the header claims 2 x 3 pixels; at most 5"):
        decode(image(RAMP), maximum_pixels=5)


def test_a_small_stream_that_claims_a_huge_image_is_not_decoded() -> None:
    huge = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + (60000).to_bytes(4, "big") * 2 + b"\0" * 40
    ds = image(RAMP, PixelData=encapsulate([huge]))
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds["PixelData"].is_undefined_length = True
    with pytest.raises(CannotDecodeError, match="the compressed stream claims 60000 x 60000"):
        decode(ds)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compression_gives_the_very_same_grey(syntax: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, size=(96, 70))
    plain = image(values, stored=12)
    packed = image(values, stored=12)
    packed.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(to_grey(packed), to_grey(plain))


def test_byte_order_and_implicit_vr_change_nothing() -> None:
    expected = to_grey(image(RAMP))
    implicit = image(RAMP)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert np.array_equal(to_grey(implicit), expected)
    big = image(RAMP, PixelData=RAMP.astype(">u2").tobytes())
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert np.array_equal(to_grey(big), expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9])
def test_a_stream_that_was_cut_off_is_refused_and_not_scored_half(syntax: str, kept: float) -> None:
    values = np.random.default_rng(1).integers(0, 4096, size=(96, 70))
    packed = image(values, stored=12)
    packed.compress(syntax, generate_instance_uid=False)
    stream = next(generate_frames(packed.PixelData, number_of_frames=1))
    packed.PixelData = encapsulate([stream[: int(len(stream) * kept)]])
    with pytest.raises(CannotDecodeError):
        to_grey(packed)


@pytest.mark.data
def test_real_chests_come_out_with_dark_lungs_and_alike_in_two_encodings() -> None:
    folder = SHARED / "cxr_dicom"
    if not folder.is_dir():
        pytest.skip("shared/data/cxr_dicom is absent")
    pictures = {path.name: to_grey(dcmread(path)) for path in sorted(folder.glob("*.dcm"))}
    assert len(pictures) == 6
    for name, picture in pictures.items():
        height, width = picture.shape
        lungs = [
            picture[height // 3 : height // 2, int(width * at) - 10 : int(width * at) + 10] for at in (0.3, 0.7)
        ]
        spine = picture[int(height * 0.6) : int(height * 0.8), width // 2 - 10 : width // 2 + 10]
        assert max(np.median(lung) for lung in lungs) < np.median(spine), name
    fuji = [picture for name, picture in pictures.items() if name.startswith("fuji")]
    assert np.array_equal(*fuji)
    philips = [picture for name, picture in pictures.items() if name.startswith("philips")]
    assert np.abs(philips[0] - philips[1]).mean() < 0.01


@pytest.mark.parametrize(
    "told", ["Unable to allocate 48.8 MiB for an array", "std::bad_alloc", "MemoryError", str(MemoryError())]
)
def test_a_decoder_that_was_short_of_memory_is_told_from_one_that_met_a_broken_stream(told: str) -> None:
    assert _NO_MEMORY.search(
        f"Unable to decode as exceptions were raised by all available plugins:\n  gdcm: {told}"
    )
    assert not _NO_MEMORY.search("the memory of this stream is 12 bytes; an allocated frame has 24")
