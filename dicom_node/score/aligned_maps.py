"""From a chest to one vector: laid over the template, seen by the middle stages of a frozen network, flattened.

Pure but for the network it is given. What is normal (template, channel statistics) comes in as an `Atlas`; knows
nothing of banks or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from dicom_node.domain.errors import BankError
from dicom_node.score.align import Placement, cut, register
from dicom_node.score.aligned_facts import AlignedFacts
from dicom_node.score.feature_maps import lite_blocks
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.pixels import Grey
from dicom_node.score.views import to_batch

Vectors = npt.NDArray[np.float32]

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Atlas:
    """What the normals look like.

    Attributes
    ----------
    template
        (64, 64) float32; see `align.register`.
    mean, deviation
        (C,) float32 of each channel of every stage, one stage after the other, over images and places.
    """

    template: Vectors
    mean: Vectors
    deviation: Vectors


def stage_maps(module: nn.Module, batch: torch.Tensor, facts: AlignedFacts) -> list[Vectors]:
    """Return the maps (N, C, G, G) float32 of each stage, every place averaged with its eight neighbours.

    Parameters
    ----------
    batch
        Normalised images (N, 3, S, S) float32.
    facts
        Which stages, by name ("blocks.4"), and the grid G that all are pooled to.
    """
    numbers = [int(name.removeprefix("blocks.")) for name in facts.stages]
    with torch.inference_mode():
        found = lite_blocks(module, batch.contiguous(memory_format=torch.channels_last), numbers)
        pooled = (adaptive_avg_pool2d(one.float(), facts.grid) for one in found)
        return [
            np.ascontiguousarray(avg_pool2d(one, 3, 1, 1, count_include_pad=False).numpy()) for one in pooled
        ]


def map_vectors(maps: Sequence[Vectors], atlas: Atlas) -> Vectors:
    """Return one vector (N, D) float32 of unit length for the maps of each image.

    Every channel is standardised by the normals; every place is brought to unit length along its channels, so
    that no place outweighs another; every stage is flattened and weighs the same.

    Raises
    ------
    BankError
        If the channels are not those of the atlas.
    """
    channels = sum(one.shape[1] for one in maps)
    if channels != len(atlas.mean):
        raise BankError(
            f"the network's stages have {channels} channels; the bank's statistics {len(atlas.mean)}"
        )
    parts, at = [], 0
    for one in maps:
        own = slice(at, at + one.shape[1])
        at += one.shape[1]
        standard = (one - atlas.mean[own, None, None]) / atlas.deviation[own, None, None]
        standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), _TINY)
        flat = standard.reshape(len(one), -1)
        parts.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _TINY))
    return np.concatenate(parts, axis=1, dtype=np.float32) / np.float32(np.sqrt(len(maps)))


def chest_maps(
    image: Grey, template: Vectors, module: nn.Module, preprocessing: Preprocessing, facts: AlignedFacts
) -> tuple[list[Vectors], Placement]:
    """Return the maps (1, C, G, G) of one square image (S, S) float32 in [0, 1], and how it was placed.

    One image at a time: a score must not depend on what shares a batch.
    """
    placement = register(image[None], template)[0]
    under = cut(image, placement, facts.box, preprocessing.size)
    batch = to_batch(under[None], preprocessing.mean, preprocessing.std)
    return stage_maps(module, batch, facts), placement
