"""Random views of each image, as Deep kNN's Siamese training wants them, drawn for every image from a seed.

Owns how a view is drawn, not how it is cut (`dicom_node.score.views`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.score.files import read_bytes
from dicom_node.score.pixels import Grey
from dicom_node.score.view_names import draw_views
from training.dataset import Item, Reader
from training.manifest import Entry


@dataclass(frozen=True, slots=True)
class RandomReader(Reader):
    """Reads files like `Reader`, but cuts random views.

    Attributes
    ----------
    views
        Only their number counts; their names identify the draw (see `random_reader`).
    draw
        What is drawn from, e.g. (seed, epoch). The views follow from it and from the file's bytes, so the same
        file under another name, or in another order, is cut the same.
    """

    draw: tuple[int, ...] = ()

    def read(self, entry: Entry) -> tuple[Item, Grey | None]:
        """Read one file; see `Reader.read`. The views are (count, S, S)."""
        try:
            digest = hashlib.sha256(read_bytes(entry.path)).digest()
        except CannotUnderstandError as error:
            return Item(skipped=f"unreadable: {error}"), None
        rng = np.random.default_rng([*self.draw, int.from_bytes(digest[:16], "big")])
        names = draw_views(rng, len(self.views))
        return Reader(self.preprocessing, names, self.rules, self.key, self.population).read(entry)


def random_reader(reader: Reader, count: int, draw: tuple[int, ...]) -> RandomReader:
    """Return a reader that cuts `count` random views of every image, and reads as `reader` otherwise."""
    names = tuple(f"random-{'-'.join(map(str, draw))}-{at}" for at in range(count))
    plain = {field.name: getattr(reader, field.name) for field in fields(Reader)}
    return RandomReader(**(plain | {"views": names}), draw=draw)
