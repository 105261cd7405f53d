"""12 bit JPEG Extended, written by DCMTK."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.domain.errors import CannotDecodeError
from dicom_node.score.pixels import decode
from tests.peers import require
from tests.phantoms import chest_dataset, part10


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    plain, path = tmp_path / "plain.dcm", tmp_path / "extended.dcm"
    plain.write_bytes(part10(chest_dataset(bits=12)))
    program = shutil.which("dcmcjpeg") or require("dcmcjpeg")
    subprocess.run([program, "+ee", "+q", "100", str(plain), str(path)], check=True, capture_output=True)
    return path


def test_twelve_bits_are_decoded_as_dcmtk_decodes_them(extended: Path) -> None:
    reference = extended.with_name("reference.dcm")
    program = shutil.which("dcmdjpeg") or require("dcmdjpeg")
    subprocess.run([program, str(extended), str(reference)], check=True, capture_output=True)
    expected = dcmread(reference).pixel_array.astype(int)
    assert expected.max() > 255
    assert np.abs(decode(dcmread(extended)).astype(int) - expected).max() <= 1


def test_a_stream_that_breaks_off_is_an_error(extended: Path) -> None:
    ds = dcmread(extended)
    ds.PixelData = ds.PixelData[:200]
    with pytest.raises(CannotDecodeError, match="JPEG Extended"):
        decode(ds)
