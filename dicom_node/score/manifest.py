"""What a bank says of itself: the manifest, valid by construction, and its hash. Pure; does no I/O."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dicom_node.domain.errors import BankError
from dicom_node.score.aligned_facts import AlignedFacts
from dicom_node.score.pixels import Rescale, Window
from dicom_node.score.salad_facts import SaladFacts
from dicom_node.score.view_names import PLACED, VIEWS

SCHEMA_VERSION = 1

LATER = ("kind", "salad", "aligned", "index")
"""Fields that came after the first banks."""

BankKind = Literal["deep-knn", "salad", "aligned-knn"]

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Three = tuple[float, float, float]
_View = Annotated[str, Field(pattern="^(" + "|".join((*VIEWS, PLACED)) + ")$")]

NORMALISATIONS: dict[str, tuple[_Three, _Three]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "127": ((127 / 255,) * 3, (128 / 255,) * 3),
}
"""Mean and standard deviation by name, in units of [0, 1]; the manifest records the numbers."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneFacts(_Part):
    """Which backbone made the bank's vectors. The node refuses to score with other weights."""

    name: str
    dim: Annotated[int, Field(ge=1)]
    weights_sha256: _Sha256
    licence: str
    training_data: str


class Preprocessing(_Part):
    """How an image becomes the backbone's input; see `pixels`, `views`. Mean and std in units of [0, 1]."""

    window: Window = "none"
    rescale: Rescale = "minmax"
    mean: _Three = NORMALISATIONS["imagenet"][0]
    std: _Three = NORMALISATIONS["imagenet"][1]
    size: Annotated[int, Field(ge=32, le=1024)] = 224
    resize_short: Annotated[int, Field(ge=32, le=2048)] = 256

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocessing:
        if self.resize_short < self.size:
            raise ValueError(f"resize_short is {self.resize_short}, below size {self.size}")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; each must be positive")
        return self


LATERAL = "LATERAL"
"""Names a lateral chest of either side: a population or an image that says so means LL and RL alike."""

_SIDES = frozenset({LATERAL, "LL", "RL"})
_FRONTAL = frozenset({"PA", "AP"})


class Population(_Part):
    """Whom the bank was built from, and so whom it may score.

    `modalities`, `views` and `institutions` in upper case; empty admits every one. Ages in whole years, both
    ends included; null is open.

    An image that does not state its modality is admitted. One that does not state its view is taken for a
    frontal one: a bank of laterals alone does not admit it. One that does not state its age or its Institution
    Name is not admitted by a bank that asks for it.
    """

    description: str = ""
    site: str = ""
    modalities: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    minimum_age: Annotated[float, Field(ge=0)] | None = None
    maximum_age: Annotated[float, Field(ge=0)] | None = None
    institutions: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_later(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `institutions` out where there are none: older banks keep their hash."""
        return {key: value for key, value in standard(self).items() if value or key != "institutions"}

    def admits(self, modality: str, view: str, age: float | None, institution: str = "") -> bool:
        """Say whether an image belongs.

        Parameters
        ----------
        modality, view, institution
            In upper case; "" where it is not stated.
        age
            Years; None where it is not stated.
        """
        if self.contradicts(modality, view, age, institution):
            return False
        if not view and self.views and not _FRONTAL & set(self.views):
            return False
        if age is None and (self.minimum_age is not None or self.maximum_age is not None):
            return False
        return bool(institution) or not self.institutions

    def contradicts(self, modality: str, view: str, age: float | None, institution: str = "") -> str:
        """Return which of the stated attributes lies outside, by name; "" if none does. For building a bank."""
        if modality and self.modalities and modality not in self.modalities:
            return "modality"
        if view and self.views and not _same_view(view, self.views):
            return "view"
        if institution and self.institutions and institution not in self.institutions:
            return "institution"
        low = 0.0 if self.minimum_age is None else self.minimum_age
        high = float("inf") if self.maximum_age is None else self.maximum_age + 1
        return "" if age is None or low <= age < high else "age"


def _same_view(view: str, wanted: tuple[str, ...]) -> bool:
    return (
        view in wanted
        or (view in _SIDES and LATERAL in wanted)
        or (view == LATERAL and bool(_SIDES & set(wanted)))
    )


class IndexFacts(_Part):
    """How a bank too large to compare with every vector is searched (see `index_file`).

    Attributes
    ----------
    kind
        "ivf-flat": inverted lists of whole vectors; "ivf-fp16": of numbers in 16 bits, in half the room.
    lists, probes
        How many there are, and how many are searched for a query.
    recall
        Share of the true `recall_k` nearest vectors that the search found, over `recall_queries` vectors of
        normals not in the bank (with leave-one-out: of the bank, without their own image), when it was built.
    """

    kind: Literal["ivf-flat", "ivf-fp16"]
    lists: Annotated[int, Field(ge=1)]
    probes: Annotated[int, Field(ge=1)]
    recall: Annotated[float, Field(ge=0, le=1)]
    recall_k: Annotated[int, Field(ge=1)]
    recall_queries: Annotated[int, Field(ge=1)]


class Manifest(_Part):
    """Everything a score depends on, and what people should know of a bank.

    Attributes
    ----------
    kind
        "deep-knn"; "salad", which has `salad`, where vectors are memory rows and k is the number K of rows; or
        "aligned-knn", which has `aligned`, where vectors are coordinates in the normals' subspace.
    index
        None where every query is compared with every vector.
    files
        SHA-256 of every other file of the bank.
    views
        In order; vector row r belongs to image r // len(views), view r % len(views).
    vectors, dim
        Shape of the index.
    calibration
        Where the calibration scores come from: "held-out" normals, a "separate" set, or "leave-one-out" (each
        bank image against the bank without its own patient's images).
    threshold
        The smallest calibration score that at most `false_positive_rate` of the calibration scores exceed.
    seen
        How many bank images stated each modality and each view.
    versions
        Of dicom_node and the libraries that made the bank.
    """

    schema_version: Literal[1] = 1
    kind: BankKind = "deep-knn"
    salad: SaladFacts | None = None
    aligned: AlignedFacts | None = None
    index: IndexFacts | None = None
    name: str
    created_at: str
    files: dict[str, _Sha256]
    backbone: BackboneFacts
    preprocessing: Preprocessing
    head: str
    views: Annotated[tuple[_View, ...], Field(min_length=1)]
    k: Annotated[int, Field(ge=1)]
    dim: Annotated[int, Field(ge=1)]
    vectors: Annotated[int, Field(ge=1)]
    normal_images: Annotated[int, Field(ge=1)]
    calibration_images: Annotated[int, Field(ge=1)]
    calibration: Literal["held-out", "separate", "leave-one-out"]
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]
    threshold: float
    population: Population
    seen: dict[str, dict[str, int]] = {}
    recipe: dict[str, str | int | float] = {}
    versions: dict[str, str]

    @model_validator(mode="after")
    def _counts_agree(self) -> Manifest:
        if self.vectors != self.normal_images * len(self.views):
            raise ValueError(
                f"{self.vectors} vectors for {self.normal_images} images of {len(self.views)} views each"
            )
        if self.k > self.vectors:
            raise ValueError(f"k is {self.k}, the bank has {self.vectors} vectors")
        for kind, own, facts in (("salad", "salad", self.salad), ("aligned-knn", "aligned", self.aligned)):
            if (self.kind == kind) != (facts is not None):
                raise ValueError(f"kind is {self.kind}, and {own} is {'missing' if facts is None else 'there'}")
        return self

    @property
    def bank_hash(self) -> str:
        """Return the SHA-256 (hex) of the canonical manifest, which holds the hashes of all other files."""
        return hashlib.sha256(_canonical(self._stated())).hexdigest()

    def to_json(self) -> bytes:
        """Return the content of ``manifest.json``: readable, with the bank's hash as its last key."""
        content = {**self._stated(), "bank_hash": self.bank_hash}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

    def _stated(self) -> dict[str, Any]:
        """Return the values for JSON, without later fields at their default: older banks keep their hash."""
        unused = {name for name in LATER if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=unused)


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Read a manifest back.

    Raises
    ------
    BankError
        If it is no valid manifest, or its hash is not the one it names.
    """
    try:
        values: Any = json.loads(content)
        stated = values.pop("bank_hash")
        manifest = Manifest.model_validate(values)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        detail = (
            "; ".join(str(e["msg"]) + f" at {e['loc']}" for e in error.errors()[:3])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise BankError(
            f"bank {name}: manifest.json is not a manifest of schema {SCHEMA_VERSION}: {detail}"
        ) from error
    if manifest.bank_hash != stated:
        raise BankError(
            f"bank {name}: manifest.json hashes to {manifest.bank_hash}, it names {stated}; it was changed"
        )
    return manifest


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
