"""Pictures are drawn in a process of their own; whatever an image does to it costs that picture alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from dicom_node.domain.errors import CannotDecodeError, OutOfResourcesError, PoisonError
from dicom_node.score import picture
from dicom_node.score.picture_process import _WAITING, PictureProcess
from tests.phantoms import chest, chest_dataset, part10

COMMAND = (sys.executable, "-m", "dicom_node.pipeline.picture")
FAKE = (
    "import sys; sys.path.insert(0, {root!r})\n"
    "from pathlib import Path\n"
    "from dicom_node.score.picture_process import run\n"
    "def read(path):\n"
    "    {does}\n"
    "run(read)\n"
)
ROOT = str(Path(__file__).parents[3])


@pytest.fixture(scope="module")
def process() -> Iterator[PictureProcess]:
    made = PictureProcess(COMMAND)
    yield made
    made.close()


def that(does: str, seconds: float = 30.0) -> PictureProcess:
    return PictureProcess((sys.executable, "-c", FAKE.format(root=ROOT, does=does)), seconds)


def stored(folder: Path, **facts: object) -> Path:
    path = folder / "image.dcm"
    path.write_bytes(part10(chest_dataset(**facts)))  # type: ignore[arg-type]
    return path


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def values_of(content: bytes) -> list[float]:
    shown = opened(content)
    shown.load()
    return [float(part) for part in shown.text[picture.VALUES].split()]  # type: ignore[attr-defined]


def test_a_thumbnail_is_a_jpeg_of_at_most_160_pixels_in_the_image_s_proportions(
    process: PictureProcess, tmp_path: Path
) -> None:
    drawn = opened(process.draw(stored(tmp_path, shape=(400, 320)), "thumbnail"))
    assert (drawn.format, drawn.mode, drawn.size) == ("JPEG", "L", (128, 160))


def test_an_image_is_a_grey_png_that_says_what_black_and_white_stand_for(
    process: PictureProcess, tmp_path: Path
) -> None:
    ds = chest_dataset(RescaleSlope="2", RescaleIntercept="-100", RescaleType="US")
    (tmp_path / "image.dcm").write_bytes(part10(ds))
    content = process.draw(tmp_path / "image.dcm", "image")
    drawn = opened(content)
    assert (drawn.format, drawn.mode, drawn.size) == ("PNG", "I;16", (160, 192))
    assert drawn.getextrema() == (0, 65535)
    stored_values = ds.pixel_array.astype(int)
    assert len(np.unique(np.asarray(drawn))) == len(np.unique(stored_values))
    assert values_of(content) == [stored_values.min() * 2 - 100, stored_values.max() * 2 - 100]


def test_an_image_of_8_bits_is_a_png_of_8_bits(process: PictureProcess, tmp_path: Path) -> None:
    assert opened(process.draw(stored(tmp_path, bits=8), "image")).mode == "L"


def test_a_voi_lut_goes_along_as_a_curve_of_the_values_shown(process: PictureProcess, tmp_path: Path) -> None:
    ds = chest_dataset()
    values = ds.pixel_array
    least, most = int(values.min()), int(values.max())
    table = Dataset()
    table.LUTDescriptor = [most - least + 1, least, 12]
    square = np.rint(4095 * np.linspace(0, 1, most - least + 1) ** 2)
    table.LUTData = square.astype(np.uint16).tobytes()
    ds.VOILUTSequence = [table]
    (tmp_path / "image.dcm").write_bytes(part10(ds))
    shown = opened(process.draw(tmp_path / "image.dcm", "image"))
    shown.load()
    curve = np.frombuffer(bytes.fromhex(shown.text[picture.CURVE]), dtype=np.uint8)  # type: ignore[attr-defined]
    assert np.abs(curve - 255 * np.linspace(0, 1, 256) ** 2).max() <= 1
    table.LUTDescriptor = [4, 0, 12]
    table.LUTData = b"\0\0"
    (tmp_path / "image.dcm").write_bytes(part10(ds))
    shown = opened(process.draw(tmp_path / "image.dcm", "image"))
    shown.load()
    assert picture.CURVE not in shown.text  # type: ignore[attr-defined]


def test_both_polarities_look_the_same_and_their_values_run_the_other_way(
    process: PictureProcess, tmp_path: Path
) -> None:
    drawn = {}
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        drawn[photometric] = process.draw(stored(tmp_path, photometric=photometric), "image")
    one, two = (np.asarray(opened(content), dtype=int) for content in drawn.values())
    assert np.abs(one - two).max() <= 257
    expected = chest().image
    assert np.corrcoef(two.ravel(), expected.ravel())[0, 1] > 0.99
    black, white = values_of(drawn["MONOCHROME1"])
    assert black > white
    black, white = values_of(drawn["MONOCHROME2"])
    assert black < white


def test_padding_is_black_in_either_polarity(process: PictureProcess, tmp_path: Path) -> None:
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        ds = chest_dataset(photometric=photometric)
        values = ds.pixel_array.copy()
        padding = 4095 if photometric == "MONOCHROME2" else 0
        values[values == padding] = 2000
        values[:40] = padding
        ds.PixelData = values.tobytes()
        ds.PixelPaddingValue = padding
        (tmp_path / "image.dcm").write_bytes(part10(ds))
        assert not np.asarray(opened(process.draw(tmp_path / "image.dcm", "image")))[:40].any()


def test_a_large_image_is_shown_with_at_most_2048_pixels_a_side() -> None:
    grey = np.zeros((2500, 2048), dtype=np.float32)
    grey[:, 1024:] = 1.0
    assert opened(picture.whole(grey, (0.0, 1.0))).size == (1678, 2048)


def test_an_image_that_cannot_be_decoded_says_why_and_the_process_goes_on(
    process: PictureProcess, tmp_path: Path
) -> None:
    with pytest.raises(CannotDecodeError, match="Rows"):
        process.draw(stored(tmp_path, Rows=0), "thumbnail")
    (tmp_path / "noise").write_bytes(b"\0" * 128 + b"DICM" + os.urandom(2000))
    with pytest.raises(CannotDecodeError):
        process.draw(tmp_path / "noise", "image")
    with pytest.raises(CannotDecodeError, match="cannot be read"):
        process.draw(tmp_path / "absent", "image")
    assert process.draw(stored(tmp_path), "thumbnail")


def test_one_that_needs_too_much_memory_costs_its_own_picture(tmp_path: Path) -> None:
    process = PictureProcess(COMMAND, megabytes=40)
    ds = chest_dataset()
    ds.Rows, ds.Columns, ds.PixelData = 6000, 6000, b"\1\2" * 36_000_000
    (tmp_path / "huge").write_bytes(part10(ds))
    try:
        with pytest.raises((CannotDecodeError, PoisonError)):
            process.draw(tmp_path / "huge", "image")
        assert process.draw(stored(tmp_path), "thumbnail")
    finally:
        process.close()


@pytest.mark.parametrize("does", ["import os; os.abort()", "print('picture', flush=True); raise SystemExit(3)"])
def test_one_that_ends_the_process_is_named_as_such(does: str, tmp_path: Path) -> None:
    process = that(does)
    with pytest.raises(PoisonError, match="ended the process"):
        process.draw(tmp_path, "image")
    process.close()


def test_one_that_holds_the_process_up_is_given_up(tmp_path: Path) -> None:
    process = that("import time; time.sleep(60)", seconds=3.0)
    with pytest.raises(PoisonError, match="longer than 3 s"):
        process.draw(tmp_path, "image")
    assert process.rest(0.0)


def test_a_process_that_was_killed_between_two_pictures_is_started_again(
    process: PictureProcess, tmp_path: Path
) -> None:
    path = stored(tmp_path)
    first = process.draw(path, "thumbnail")
    running = process._process
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert process.draw(path, "thumbnail") == first


def test_the_process_outlives_the_thread_that_needed_it_first(tmp_path: Path) -> None:
    process, path = PictureProcess(COMMAND), stored(tmp_path)
    first = threading.Thread(target=process.draw, args=(path, "thumbnail"))
    first.start()
    first.join()
    assert process._process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process._process.wait(1.0)
    process.close()


def test_a_process_that_nobody_needs_rests_and_comes_back(process: PictureProcess, tmp_path: Path) -> None:
    path = stored(tmp_path)
    assert process.draw(path, "thumbnail")
    assert not process.rest(3600.0)
    assert process.rest(0.0)
    assert process.draw(path, "thumbnail")


def test_more_than_a_hundred_who_wait_are_told_to_come_again(process: PictureProcess, tmp_path: Path) -> None:
    for _ in range(_WAITING):
        process._places.acquire()
    try:
        with pytest.raises(OutOfResourcesError, match="ask again"):
            process.draw(tmp_path, "image")
    finally:
        for _ in range(_WAITING):
            process._places.release()
