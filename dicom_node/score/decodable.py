"""What must hold before a decoder sees an image: some end the process, or work for minutes, on what they do not expect.

Each rule stands for a crash or a hang that fuzzing found, or for memory that a small file could claim. Pure.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless

from dicom_node.score.attributes import cannot_decode
from dicom_node.score.codestream import codestream_shape

_END_OF_IMAGE = b"\xff\xd9"
"""EOI (ITU-T T.87). Without it CharLS reads on for seconds behind the end of even a small image."""


def check_size(ds: Dataset, who: str, rows: int, columns: int, maximum: int) -> None:
    """Raise if an image has too many pixels.

    Raises
    ------
    CannotDecodeError
        With who says so: the header, or the stream.
    """
    if rows * columns > maximum:
        raise cannot_decode(ds, f"{who} {rows} x {columns} pixels; at most {maximum} are decoded")


def check_stream(ds: Dataset, module: Dataset, maximum_pixels: int) -> None:
    """Raise if a compressed image is not safe to decode.

    Parameters
    ----------
    ds
        The image, for the message.
    module
        Its Image Pixel module (PS3.3 section C.7.6.3), with file meta.

    Raises
    ------
    CannotDecodeError
        With what is wrong.
    """
    syntax = module.file_meta.TransferSyntaxUID
    seen = codestream_shape(module.PixelData)
    if seen is not None:
        rows, columns, components = seen
        check_size(ds, "the compressed stream claims", rows, columns, maximum_pixels)
        if components != module.SamplesPerPixel:  # GDCM aborts
            raise cannot_decode(
                ds,
                f"{components} components in the stream, {module.SamplesPerPixel} samples per pixel in the header",
            )
    if syntax in (JPEGLSLossless, JPEGLSNearLossless) and _END_OF_IMAGE not in module.PixelData[-64:]:
        raise cannot_decode(ds, "the JPEG-LS stream has no end; send the whole image")
    if module.SamplesPerPixel == 3 and module.BitsStored != module.BitsAllocated:  # GDCM aborts
        raise cannot_decode(
            ds,
            f"{module.BitsStored} bits stored in {module.BitsAllocated} allocated, in colour; both must be the same",
        )
