"""What a manifest says of an aligned-knn bank beyond what every bank says. Pure; does no I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Share = Annotated[float, Field(ge=0, le=1)]
_Stage = Annotated[str, Field(pattern=r"^blocks\.[0-9]{1,2}$")]

STAGES = ("blocks.4", "blocks.7", "blocks.10")
"""The blocks of EfficientNet-Lite0 that end its stages of 40, 80 and 112 channels."""

BOX = (32 / 224, 22 / 224, 196 / 224, 206 / 224)
"""Top, left, bottom, right: the lungs of an average frontal chest."""


class AlignedFacts(BaseModel):
    """What is particular to a bank of kind "aligned-knn".

    Attributes
    ----------
    stages
        Blocks of the backbone whose maps are used, in their order.
    grid
        Rows and columns that every map is pooled to.
    box
        Top, left, bottom, right in shares of the template: the part of it that the network sees.
    fitted_images
        How many of the bank's images made template, channel statistics and subspace.
    held_out_images
        How many of those judged the number of directions of the subspace.
    seed
        Of the draws that the fit needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: Annotated[tuple[_Stage, ...], Field(min_length=1)] = STAGES
    grid: Annotated[int, Field(ge=1, le=64)] = 14
    box: tuple[_Share, _Share, _Share, _Share] = BOX
    fitted_images: Annotated[int, Field(ge=2)]
    held_out_images: Annotated[int, Field(ge=1)]
    seed: int

    @model_validator(mode="after")
    def _in_order(self) -> AlignedFacts:
        numbers = [int(name.removeprefix("blocks.")) for name in self.stages]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"stages are {self.stages}; each once, ascending")
        top, left, bottom, right = self.box
        if top >= bottom or left >= right:
            raise ValueError(f"box is {self.box}; top above bottom and left before right")
        return self
