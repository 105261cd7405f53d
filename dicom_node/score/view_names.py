"""The fixed views of an image by name: which there are, which a text means. Pure; needs no torch.

The paper's test views are random; a device's are not: a bank names its views and the node cuts the same. A
view drawn at random is named by the place it was cut from: its name is all that is needed to cut it again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dicom_node.domain.errors import BankError

CROPS = ("tl", "tr", "bl", "br", "centre")
"""Four corners, and the middle."""

VIEWS: tuple[str, ...] = tuple(name + flip for flip in ("", "-flip") for name in ("squash", *CROPS))
"""Every view by name: the whole image squashed to a square, five crops, and their mirrors."""

PLACED = r"crop-[0-9]{3}-[0-9]{3}(-flip)?"
"""Form of a crop's name that says its place: how far down and across, in thousandths of the free path."""

_PLACED = re.compile(rf"{PLACED}\Z")
_RANDOM = re.compile(r"random:([0-9]{1,9}):([0-9]{1,3})\Z")

DEFAULT_VIEWS: tuple[str, ...] = tuple(name for name in VIEWS if not name.startswith("squash"))
"""Five crops and their flips."""


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` as a tuple.

    Raises
    ------
    BankError
        If there are none, one stands twice, or one is unknown.
    """
    unknown = [name for name in names if name not in VIEWS and not _PLACED.match(name)]
    if unknown or not names or len(set(names)) != len(names):
        raise BankError(
            f"views are {list(names)}; name each once, out of: {', '.join(VIEWS)}, crop-DOWN-ACROSS(-flip) "
            "with both in thousandths (000 to 999)"
        )
    return tuple(names)


def draw_views(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Draw random crops, each mirrored with probability one half: view t of Deep kNN.

    Returns
    -------
    tuple of str
        `count` different names of the form "crop-DOWN-ACROSS" or "crop-DOWN-ACROSS-flip".
    """
    names: dict[str, None] = {}
    while len(names) < count:
        down, across, flip = rng.integers((1000, 1000, 2)).tolist()
        names[f"crop-{down:03d}-{across:03d}{'-flip' if flip else ''}"] = None
    return tuple(names)


def parse_views(text: str) -> tuple[str, ...]:
    """Return the views that a comma-separated list names.

    Parameters
    ----------
    text
        Names, or "random:SEED:A" for A crops drawn once from SEED.

    Raises
    ------
    BankError
        As `check_views`; or if A is 0.
    """
    names: list[str] = []
    for part in text.split(","):
        match = _RANDOM.match(part.strip())
        if match:
            names += draw_views(np.random.default_rng(int(match[1])), int(match[2]))
        else:
            names.append(part.strip())
    return check_views(names)
