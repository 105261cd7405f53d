"""Builders of images, and a small real backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from torch import nn

from dicom_node.score.backbone import TorchBackbone
from dicom_node.score.manifest import Population, Preprocessing

CR = "1.2.840.10008.5.1.4.1.1.1"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def image(values: npt.ArrayLike, *, stored: int = 16, signed: bool = False, **attributes: Any) -> Dataset:
    """Return a CR data set that holds these stored values in explicit little endian."""
    array = np.asarray(values)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CR
    ds.SOPInstanceUID = "1.2.3.4"
    ds.SeriesInstanceUID = "1.2.3"
    ds.Modality = "CR"
    ds.Rows, ds.Columns = array.shape[:2]
    ds.SamplesPerPixel = 1 if array.ndim == 2 else array.shape[2]
    if array.ndim == 3:
        ds.PlanarConfiguration = 0
    allocated = 8 if stored <= 8 else 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(signed)
    ds.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    content = array.astype(f"<{kind}").tobytes()
    ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def small_backbone(seed: int = 0, name: str = "small") -> TorchBackbone:
    """Return a real, tiny network: one convolution, pooled; 6 features."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    digest = f"{seed:064x}"
    return TorchBackbone(name, module, digest, licence="none", training_data="none", side=32)


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.asarray(vectors, dtype=np.float64)
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def bank_facts(**changes: Any) -> dict[str, Any]:
    """Return the manifest's fields that `write_bank` does not fill in."""
    facts: dict[str, Any] = {
        "created_at": "2026-01-02T03:04:05+00:00",
        "backbone": {
            "name": "small", "dim": 24, "weights_sha256": "0" * 64, "licence": "none", "training_data": "none",
        },
        "preprocessing": Preprocessing(size=32, resize_short=40),
        "views": ("squash",),
        "k": 1,
        "calibration": "held-out",
        "false_positive_rate": 0.05,
        "population": Population(description="phantoms", site="here"),
        "versions": {"dicom_node": "0"},
    }  # fmt: skip
    return facts | changes
