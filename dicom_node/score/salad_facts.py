"""What a manifest says of a SALAD bank beyond what every bank says. Pure; does no I/O."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weighting = Literal["mean", "weighted"]


class SaladFacts(BaseModel):
    """What is particular to a bank of kind "salad": its encoder, its score, and how it was trained.

    Attributes
    ----------
    channels
        Of the encoder's first level; each level doubles them down to 4 x 4 pixels.
    weighting
        "mean" of the k angles, or "weighted" by w_j proportional to exp(cos_j / tau).
    rounds, epochs
        The last round (the first is 0), and the epochs of each.
    reconstruction
        The loss between image and reconstruction: "l1", or "mse".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1)]
    weighting: Weighting = "mean"
    tau: Annotated[float, Field(gt=0)]
    rounds: Annotated[int, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]
    seed: int
    reconstruction: Literal["l1", "mse"]
