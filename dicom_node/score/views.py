"""How each of an image's fixed views (see `view_names`) is cut. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from dicom_node.domain.errors import BankError
from dicom_node.score.view_names import check_views

Grey = npt.NDArray[np.float32]

_CROPS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "tl": lambda _down, _across: (0, 0),
    "tr": lambda _down, across: (0, across),
    "bl": lambda down, _across: (down, 0),
    "br": lambda down, across: (down, across),
    "centre": lambda down, across: (down // 2, across // 2),
}
"""Where each crop begins, given how far it could move down and across."""


def make_views(grey: Grey, names: Sequence[str], size: int = 224, resize_short: int = 256) -> Grey:
    """Cut the named views out of one image.

    Parameters
    ----------
    grey
        (H, W) float32 in [0, 1].
    names
        Out of `VIEWS`, or by place. "squash" resizes the whole image to size x size; every other view is a crop
        after the short side was resized to `resize_short`. "crop-DDD-AAA" begins floor(DDD * (free + 1) / 1000)
        pixels down and likewise across, where free is how far the crop could move: every place is as likely.
    size
        Side S of a view, pixels.
    resize_short
        Short side before cropping, pixels; at least `size`.

    Returns
    -------
    numpy.ndarray
        (A, S, S) float32 in [0, 1], in the order of `names`. Resizing is bilinear with antialiasing; an image
        that already has the wanted size is unchanged.
    """
    check_views(names)
    if resize_short < size:
        raise BankError(f"the short side is resized to {resize_short}, below the crop of {size}")
    height, width = grey.shape
    whole = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))
    squashed = scaled = None
    out = torch.empty((len(names), size, size), dtype=torch.float32)
    for row, name in enumerate(names):
        base = name.removesuffix("-flip")
        if base == "squash":
            squashed = _resize(whole, size, size) if squashed is None else squashed
            view = squashed
        else:
            if scaled is None:
                ratio = resize_short / min(height, width)
                scaled = _resize(whole, _side(height, ratio), _side(width, ratio))
            top, left = _corner(base, scaled.shape[0] - size, scaled.shape[1] - size)
            view = scaled[top : top + size, left : left + size]
        out[row] = view.flip(1) if name.endswith("-flip") else view
    return out.numpy()


def view_box(
    name: str, height: int, width: int, size: int = 224, resize_short: int = 256
) -> tuple[float, float, float, float]:
    """Return where in an image a view looks: top, left, bottom, right as shares of its height and width.

    Parameters
    ----------
    name
        A view; one and its mirror look at the same place.
    height, width
        Of the image, pixels.
    size, resize_short
        As for `make_views`.
    """
    base = check_views([name])[0].removesuffix("-flip")
    if base == "squash":
        return 0.0, 0.0, 1.0, 1.0
    ratio = resize_short / min(height, width)
    rows, columns = _side(height, ratio), _side(width, ratio)
    top, left = _corner(base, rows - size, columns - size)
    return top / rows, left / columns, (top + size) / rows, (left + size) / columns


def to_batch(views: Grey, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return views as what a backbone takes.

    Parameters
    ----------
    views
        (N, S, S) float32 in [0, 1].
    mean, std
        Of each of the three channels, in units of [0, 1].

    Returns
    -------
    torch.Tensor
        (N, 3, S, S) float32: grey repeated to three channels, each (x - mean) / std, channels-last in memory.
    """
    grey = torch.from_numpy(np.ascontiguousarray(views))[:, None]
    shift = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1)
    return ((grey - shift) / scale).contiguous(memory_format=torch.channels_last)


def _corner(name: str, down: int, across: int) -> tuple[int, int]:
    if name in _CROPS:
        return _CROPS[name](down, across)
    far_down, far_across = (int(part) for part in name.split("-")[1:3])
    return far_down * (down + 1) // 1000, far_across * (across + 1) // 1000


def _side(length: int, ratio: float) -> int:
    return max(1, round(length * ratio))


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if tuple(image.shape) == (height, width):
        return image
    resized = interpolate(
        image[None, None], size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0, 0].clamp_(0.0, 1.0)
