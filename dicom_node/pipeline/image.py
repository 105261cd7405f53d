"""One image in the scoring process: reads the whole stored file, which no other process does, and scores it.

``python -m dicom_node.pipeline.image`` is that process; `dicom_node.score.apart` starts and watches it. Knows
neither database nor network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset
from pydicom.errors import BytesLengthException

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.types import ImageResult, Refusal
from dicom_node.pipeline.headers import read_dataset
from dicom_node.pipeline.verdict import UNDECODABLE
from dicom_node.score.child import Explain, Scoring, Setup, run


def analyse(path: Path, score: Callable[[Dataset], ImageResult]) -> ImageResult:
    """Read a stored file and score it.

    Parameters
    ----------
    score
        Scores one data set or says why not.

    Returns
    -------
    ImageResult
        With a refusal, and without UIDs, where the data set cannot be read.

    Raises
    ------
    OSError
        If the file itself cannot be read: no property of the image.
    MemoryError
        If the image needs more than this process may use.
    """
    try:
        return score(read_dataset(path))
    except CannotUnderstandError as error:
        return _refused(f"the stored data set: {error}")
    except BytesLengthException:
        return _refused("an element that the score needs has not the length that its VR asks for")


def _refused(reason: str) -> ImageResult:
    return ImageResult("", "", "", refusal=Refusal(UNDECODABLE, reason))


def _scoring(setup: Setup) -> Scoring:
    from dicom_node.score.scorer import Analyser

    analyser = Analyser.from_config(setup.score)

    def score(path: Path, bank: str) -> tuple[ImageResult, Explain | None]:
        explain: Explain | None = None

        def examine(ds: Dataset) -> ImageResult:
            nonlocal explain
            result, explain = analyser.examine(ds, bank)
            return result

        return analyse(path, examine), explain

    return Scoring(analyser.warm_up, analyser.changed, score)


if __name__ == "__main__":
    run(_scoring)
