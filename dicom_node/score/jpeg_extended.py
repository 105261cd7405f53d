"""Decodes 12 bit JPEG Extended with GDCM itself.

pydicom has no decoder for it but a GPL one: it asks neither Pillow (8 bit only) nor GDCM, which does have a
12 bit codec. Owns this one codec; reads no header element that the caller has not checked.
"""

from __future__ import annotations

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGExtended12Bit


def needs_gdcm(ds: Dataset) -> bool:
    """Say whether the pixel data are JPEG Extended (process 4) of more than 8 bits (PS3.5 section 8.2.1)."""
    return bool(ds.file_meta.TransferSyntaxUID == JPEGExtended12Bit and ds.BitsStored > 8)


def decode_extended(ds: Dataset) -> npt.NDArray[np.integer]:
    """Return the one frame's samples, (H, W), 16 bit.

    Parameters
    ----------
    ds
        Of one sample per pixel in 16 allocated bits, with its pixel data encapsulated.

    Raises
    ------
    ValueError
        If GDCM cannot decode the stream, or it is of another size.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(ds.PixelData, 0, number_of_frames=1))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((ds.Columns, ds.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2"))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEGExtended12Bit)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, ds.BitsStored, ds.BitsStored - 1, ds.PixelRepresentation))
    # GDCM hands bytes over as text with surrogates.
    samples = image.GetBuffer().encode("utf-8", "surrogateescape")
    wanted = ds.Rows * ds.Columns * 2
    if len(samples) != wanted:
        raise ValueError(f"GDCM decoded {len(samples)} bytes where {wanted} are expected")
    kind = np.dtype("<i2" if ds.PixelRepresentation == 1 else "<u2")
    return np.frombuffer(samples, kind).reshape(ds.Rows, ds.Columns)
