"""``python -m dicom_node.pipeline.picture``: the process that draws pictures; see `score.picture_process`."""

from __future__ import annotations

from dicom_node.pipeline.headers import read_dataset
from dicom_node.score.picture_process import run

if __name__ == "__main__":
    run(read_dataset)
