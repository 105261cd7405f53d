"""What fuzzing starts from: data sets of pydicom, of phantoms in every transfer syntax, and those at hand.

A seed is a data set as it stands in a P-DATA stream, with what its C-STORE command would say.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pydicom.data.data_manager
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.pipeline.headers import READ_ERRORS
from tests.phantoms import chest_dataset, part10

PYDICOM_FILES = Path(pydicom.data.data_manager.DATA_ROOT) / "test_files"
AT_HAND = Path(__file__).parents[3] / "shared" / "data" / "cxr_dicom"
LARGEST = 64 * 1024
_SC = "1.2.840.10008.5.1.4.1.1.7"
_WRITTEN = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
)


@dataclass(frozen=True)
class Seed:
    """A data set and its command. `deflated` ones are mutated before they are deflated, or after."""

    name: str
    content: bytes
    sop_class: str
    sop_instance: str
    syntax: str

    @property
    def deflated(self) -> bool:
        return self.syntax == DeflatedExplicitVRLittleEndian

    @property
    def plain(self) -> bytes:
        """Return the data set's elements, inflated."""
        return zlib.decompress(self.content, -zlib.MAX_WBITS) if self.deflated else self.content

    def packed(self, plain: bytes) -> bytes:
        """Return elements as this seed's transfer syntax has them."""
        if not self.deflated:
            return plain
        engine = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        return engine.compress(plain) + engine.flush()


def from_file(path: Path, name: str, most: int = -1) -> Seed | None:
    """Return the data set of a file, or of its first bytes; None where it is no DICOM."""
    with path.open("rb") as file:
        content = file.read(most)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(BytesIO(content), force=True, stop_before_pixels=True)
            sop_class, sop_instance = (
                str(ds.get("SOPClassUID") or _SC),
                str(ds.get("SOPInstanceUID") or "1.2.3"),
            )
    except READ_ERRORS:
        return None
    offset = _data_set_offset(content)
    if content[128:132] != b"DICM" and "SOPClassUID" not in ds:
        return None
    implicit, little = ds.original_encoding
    guessed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = str(ds.file_meta.get("TransferSyntaxUID", "")) or str(guessed)
    return Seed(name, content[offset:], sop_class, sop_instance, syntax)


def _data_set_offset(content: bytes) -> int:
    """Return where the data set begins: behind preamble and every element of group 0002."""
    if content[128:132] != b"DICM":
        return 0
    buffer = BytesIO(content)
    buffer.seek(132)
    while True:
        here = buffer.tell()
        head = buffer.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return here
        length = (
            int.from_bytes(buffer.read(4), "little")
            if head[4:6] in (b"OB", b"UN")
            else int.from_bytes(head[6:], "little")
        )
        buffer.seek(length, 1)


def phantom(syntax: UID) -> FileDataset:
    """Return a small phantom in a transfer syntax."""
    ds = chest_dataset(seed=5, shape=(64, 64), bits=16 if syntax == RLELossless else 12)
    if syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def _phantoms() -> Iterator[Seed]:
    for syntax in _WRITTEN:
        ds = phantom(syntax)
        if syntax.is_encapsulated:
            content = part10(ds)
            plain = content[_data_set_offset(content) :]
        else:
            buffer = DicomBytesIO()
            buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
            # Pixels keep their byte order: big endian ones come out strange, which is welcome here.
            write_dataset(buffer, ds)
            plain = buffer.getvalue()
        seed = Seed(f"phantom:{syntax.name}", plain, str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(syntax))
        yield replace(seed, content=seed.packed(plain))


@lru_cache(maxsize=1)
def seeds() -> dict[str, Seed]:
    """Return every seed, by name. Copies of one file count once; a file longer than `LARGEST` is cut there."""
    found: dict[str, Seed] = {seed.name: seed for seed in _phantoms()}
    seen: set[bytes] = set()
    files = [(path, path.relative_to(PYDICOM_FILES).as_posix()) for path in sorted(PYDICOM_FILES.rglob("*"))]
    files += [(path, f"at_hand/{path.name}") for path in sorted(AT_HAND.glob("*")) if path.is_file()]
    for path, name in files:
        if not path.is_file() or ("TINY_ALPHA/PT" in name and name[-1] != "0"):
            continue
        seed = from_file(path, name, LARGEST)
        if seed is not None and seed.content not in seen:
            seen.add(seed.content)
            found[name] = seed
    return found
