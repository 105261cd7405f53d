"""Small pictures of a bank's normals, so that people see what an image was compared with. Owns which are made."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score.files import read_image
from dicom_node.score.picture import thumbnail
from training.dataset import Item
from training.embed import Embedded
from training.order import Order


def thumbnails_for(order: Order, usable: Embedded, bank: Sequence[Item]) -> dict[str, bytes]:
    """Return a JPEG of each image of the bank by its identifier; nothing where the order wants none.

    They are drawn as the reading worklist draws its own: no window, stretched to the image's range.

    Parameters
    ----------
    usable
        The normals that were read, with their files.
    bank
        Those of them that stand in the bank.
    """
    if not order.thumbnails:
        return {}
    wanted = {item.file_id for item in bank}
    made: dict[str, bytes] = {}
    for item, path in zip(usable.items, usable.paths, strict=True):
        if item.file_id in wanted and item.file_id not in made:
            try:
                made[item.file_id] = thumbnail(read_image(path)[0])
            except (CannotDecodeError, CannotUnderstandError):
                continue  # a file that has gone since it was embedded: the bank stands without its picture
    return made
