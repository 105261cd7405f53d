"""Fuzzing that follows coverage, with atheris: ``python -m tests.fuzz.guided -runs=20000``.

Needs the extra ``fuzz``. The first byte of an input chooses the transfer syntax, the rest is a data set in it. Decoding
is left out: a decoder that ends the process would end the run, and is contained by the scoring process
(`score.apart`). An exception is the finding; atheris writes its input down.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris  # type: ignore[import-not-found,unused-ignore]

with atheris.instrument_imports(include=["dicom_node.pipeline", "dicom_node.report", "pydicom"]):
    from pydicom import Dataset
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    from dicom_node.config import Eligibility
    from dicom_node.domain.errors import CannotUnderstandError
    from dicom_node.domain.types import ImageResult, Refusal
    from dicom_node.pipeline import image
    from dicom_node.pipeline.headers import read_header
    from dicom_node.receive.staging import Command, file_header
    from dicom_node.report.encoding import _data_set
    from dicom_node.report.header import normalise
    from dicom_node.score.eligibility import judge
    from tests.fuzz.seeds import seeds

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def _refuse(ds: Dataset) -> ImageResult:
    return ImageResult("", "", "", refusal=judge(ds, Eligibility()) or Refusal("fuzz", "not decoded"))


def _look(path: Path, content: bytes, syntax: str) -> None:
    """Do with a data set what looks at it: read, judge, copy into the header of a report."""
    path.write_bytes(file_header(Command("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4", syntax), "FUZZ") + content)
    try:
        header = read_header(path)
    except CannotUnderstandError:
        return
    image.analyse(path, _refuse)
    normal, _ = normalise(header)
    _data_set(normal, ["ISO_IR 6"])


def main() -> None:
    """Fuzz until the number of runs is reached or something is found."""
    warnings.simplefilter("ignore")
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        known = {str(syntax): number for number, syntax in enumerate(SYNTAXES)}
        for number, seed in enumerate(seeds().values()):
            if seed.syntax in known:
                (corpus / str(number)).write_bytes(bytes([known[seed.syntax]]) + seed.content)

        def one(data: bytes) -> None:
            if len(data) > 1:
                _look(Path(folder) / "input.dcm", data[1:], str(SYNTAXES[data[0] % len(SYNTAXES)]))

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
