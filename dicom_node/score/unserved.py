"""What is said of an image that no bank serves. Pure. Quotes technical attributes, never the patient's."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicom_node.domain.types import Refusal
from dicom_node.score.attributes import text
from dicom_node.score.eligibility import stated_view
from dicom_node.score.manifest import BankKind
from dicom_node.score.population import stated_age, stated_institution

CODE = "no_bank"


def no_bank(kind: BankKind) -> Refusal:
    """Return the refusal where no bank of the deciding kind is active."""
    how = "" if kind == "deep-knn" else f" --method {kind}"
    return Refusal(
        CODE,
        f"no bank of normals of kind {kind} is active; build one with "
        f"`dicom-node bank build{how}` and activate it with `dicom-node bank activate`",
    )


def not_admitted(ds: Dataset, kind: BankKind, active: Sequence[str]) -> Refusal:
    """Return the refusal where no active bank's population has this image."""
    return Refusal(
        CODE, f"no active bank of kind {kind} serves {_described(ds)}; active are: {', '.join(active)}"
    )


def not_admitted_by(ds: Dataset, name: str) -> Refusal:
    """Return the refusal where the bank that a person named has another population."""
    return Refusal(CODE, f"bank {name}, which was asked for, does not serve {_described(ds)}")


def _described(ds: Dataset) -> str:
    age = "age" if stated_age(ds) is not None else "age, which is not stated"
    return (
        f"modality {text(ds, 'Modality') or 'unknown'}, view {stated_view(ds) or 'unknown'}, "
        f"Institution Name {stated_institution(ds) or 'unknown'} and this patient's {age}"
    )
