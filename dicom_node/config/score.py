"""Which images are scored, and by what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from dicom_node.config.values import Section


class Eligibility(Section):
    """Which images are scored; every image that is not gets a stated reason.

    Text is compared in upper case. An empty list allows everything. Body part and view are checked only
    where the image states them, unless the ``require_`` key says otherwise.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "PORT CHEST")
    require_body_part: bool = False
    view_positions: tuple[str, ...] = ("PA", "AP")
    require_view_position: bool = False
    presentation_intents: tuple[str, ...] = ("FOR PRESENTATION",)
    minimum_pixels: Annotated[int, Field(ge=1)] = 128


Kind = Literal["deep-knn", "salad", "aligned-knn"]
"""Kinds of bank."""

Explain = Literal["never", "above", "all"]
"""Which scored images it is told of where they lie far from normal."""


class ScoreSection(Section):
    """The scorer: the folder of banks, the method and the eligibility rules.

    With "both", an image is scored by a bank of each of the two papers' kinds, with "all" by one of every kind;
    the one that `decides` names decides.
    """

    banks: Path = Path("var/banks")
    method: Literal["deep-knn", "salad", "aligned-knn", "both", "all"] = "deep-knn"
    decides: Kind = "deep-knn"
    explain: Explain = "above"
    threads: Annotated[int, Field(ge=0)] = 0
    maximum_megapixels: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    eligibility: Eligibility = Eligibility()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of bank that score an image, the one that decides first."""
        if self.method != "both" and self.method != "all":
            return (self.method,)
        several: tuple[Kind, ...] = ("deep-knn", "salad") if self.method == "both" else get_args(Kind)
        return (self.decides, *(kind for kind in several if kind != self.decides))

    @model_validator(mode="after")
    def _one_of_them_decides(self) -> ScoreSection:
        if self.method == "both" and self.decides == "aligned-knn":
            raise ValueError('decides is "aligned-knn", which method "both" does not score with; "all" does')
        return self
