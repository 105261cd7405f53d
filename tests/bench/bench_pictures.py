"""How long a person waits for a picture: the first thumbnail, the next, a whole image, one from the cache.

A CR of 2500 x 2048 with 12 bits, uncompressed. ``make bench`` prints it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dicom_node.config import Db
from dicom_node.db.engine import open_engine
from dicom_node.pipeline.pictures import NodePictures
from dicom_node.score.picture_process import PictureProcess
from tests.phantoms import chest_dataset, part10

SHAPE, TIMES = (2500, 2048), 7


def took(call: Callable[[], object]) -> float:
    """Return milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def test_time_to_a_picture(tmp_path: Path) -> None:
    image = tmp_path / "image.dcm"
    image.write_bytes(part10(chest_dataset(shape=SHAPE, form="cr")))
    process = PictureProcess((sys.executable, "-m", "dicom_node.pipeline.picture"))
    made = NodePictures(open_engine(Db(url=f"sqlite:///{tmp_path}/db")), tmp_path, process, tmp_path / "banks")
    print(f"\nfirst thumbnail, process started {took(partial(process.draw, image, 'thumbnail')):7.0f} ms")
    for kind in ("thumbnail", "image"):
        times = [took(partial(process.draw, image, kind)) for _ in range(TIMES)]
        print(f"{kind:32s} {statistics.median(times):7.0f} ms  {len(process.draw(image, kind)) / 1000:.0f} kB")
    made.picture(image, "ab" * 32, "image")
    print(f"image from the cache             {took(partial(made.picture, image, 'ab' * 32, 'image')):7.1f} ms")
    made.close()
