"""Lets torchvision import beside a torch build that its compiled operators were not linked against.

The package on the public index is linked against CUDA torch. Beside a CPU build its operators do not load, and
the import fails because two operator schemas are then unknown. Declaring those two suffices: models and
transforms work; the operators themselves (box suppression), which nothing here uses, stay unavailable.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []


def import_models() -> ModuleType:
    """Return ``torchvision.models``, declaring the missing schemas only where the import fails without them."""
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)  # the schemas live as long as the library object
    return importlib.import_module("torchvision.models")
