"""The model card beside a bank: what the manifest says, in words for people.

The card follows from the manifest and adds no fact. It is not hashed: the manifest is the bank's word, the card
its translation, and whoever doubts it writes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_node.score.durable import write_synced
from dicom_node.score.manifest import Manifest, Population

NAME = "MODEL_CARD.md"

_CALIBRATION = {
    "held-out": "images of other patients of the same source, held out from the bank",
    "separate": "a separate set of normal images, none of whose patients stands in the bank",
    "leave-one-out": "the bank's own images, each against the bank without its patient's images",
}


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card into the bank's folder."""
    write_synced(folder / NAME, model_card(manifest).encode())


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown."""
    sections = (
        _opening(manifest),
        _data(manifest),
        _population(manifest.population),
        _method(manifest),
        _calibration(manifest),
        _LIMITS,
        _everything(manifest),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


_LIMITS = (
    "## Limits",
    "- The score says how unlike these normals an image is. It names no disease and finds no place.",
    "- Small and subtle findings, and those that many normals share, may lie below the threshold.",
    "- Another detector, processing, view or age group changes scores; so does anything drawn on the image.",
    "- This card holds no accuracy: a bank of normals has none until it is evaluated on labelled images.",
)


def _opening(manifest: Manifest) -> tuple[str, ...]:
    words = (
        "A bank of normal chest radiographs. An image is scored by its distance to them; a higher score is "
        "further from normal. **Not a medical device. Its results are unverified, for research and for sites "
        "that validate it themselves.**"
    )
    made = f"Made {manifest.created_at}, hash `{manifest.bank_hash}`."
    return f"# Bank `{manifest.name}`", "", words, "", made


def _data(manifest: Manifest) -> tuple[str, ...]:
    return (
        "## Data",
        f"- {manifest.normal_images} normal images, {manifest.vectors} vectors of {manifest.dim} numbers.",
        *(f"- {name.capitalize()} as stated: {_counts(seen)}." for name, seen in manifest.seen.items()),
        "- Whether these images are normal is the word of whoever chose them; this program did not check it.",
    )


def _population(people: Population) -> tuple[str, ...]:
    beyond = (
        "- An image of another population is scored as far from normal because of the population. Do not use "
        "the bank outside of its own."
    )
    return (
        "## Population",
        f"- {people.description or 'Not described.'}",
        f"- Site: {people.site or 'not stated'}.",
        f"- Scores only: {_admitted(people)}.",
        beyond,
    )


def _method(manifest: Manifest) -> tuple[str, ...]:
    backbone, prep = manifest.backbone, manifest.preprocessing
    return (
        "## Method",
        f"- Backbone `{backbone.name}` ({backbone.dim} features), weights SHA-256 `{backbone.weights_sha256}`.",
        f"- The weights' licence: {backbone.licence}. Trained on: {backbone.training_data}.",
        f"- Head: {manifest.head}.",
        f"- Views ({len(manifest.views)}): {', '.join(manifest.views)}.",
        f"- Input: window {prep.window}, rescale {prep.rescale}, mean {prep.mean}, std {prep.std}.",
        f"- Size {prep.size} pixels; before a crop the short side is {prep.resize_short}.",
        f"- Score: {_score(manifest)}.",
        *_search(manifest),
    )


def _search(manifest: Manifest) -> tuple[str, ...]:
    index = manifest.index
    if index is None:
        return ()
    found = f"{100 * index.recall:g} % of the true {index.recall_k} nearest ({index.recall_queries} queries)"
    return (f"- Search: {index.kind}, {index.probes} of {index.lists} lists probed; it finds {found}.",)


def _score(manifest: Manifest) -> str:
    if manifest.salad is not None:
        return (
            f"{manifest.salad.weighting} of the angles to the {manifest.k} nearest memory rows, a share of pi"
        )
    if manifest.aligned is not None:
        return (
            f"squared distance to neighbour k = {manifest.k} among maps of {', '.join(manifest.aligned.stages)} of "
            f"chests laid over the normals' template, in the {manifest.dim} principal directions of "
            f"{manifest.aligned.fitted_images} normals"
        )
    return f"squared distance to neighbour k = {manifest.k} among unit vectors, geometric mean over views"


def _calibration(manifest: Manifest) -> tuple[str, ...]:
    how, rate = manifest.calibration, f"{100 * manifest.false_positive_rate:g} %"
    return (
        "## Calibration and threshold",
        f"- {manifest.calibration_images} scores ({how}): {_CALIBRATION[how]}.",
        f"- Threshold {manifest.threshold!r}: at most {rate} of the calibration scores exceed it.",
        "- On a site's own normals the rate must be measured again (`python -m training evaluate`).",
    )


def _everything(manifest: Manifest) -> tuple[str, ...]:
    return (
        "## Everything the manifest says",
        "| field | value |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in _leaves(manifest.model_dump(mode="json"))),
    )


def _counts(seen: dict[str, int]) -> str:
    return ", ".join(f"{value} {count}" for value, count in sorted(seen.items())) or "none"


def _admitted(people: Population) -> str:
    parts = [", ".join(part) for part in (people.modalities, people.views) if part]
    if people.minimum_age is not None or people.maximum_age is not None:
        low = "0" if people.minimum_age is None else f"{people.minimum_age:g}"
        high = "any age" if people.maximum_age is None else f"{people.maximum_age:g}"
        parts.append(f"ages {low} to {high} years")
    if people.institutions:
        parts.append(f"Institution Name {', '.join(people.institutions)}")
    return "; ".join(parts) or "every eligible image (no population was stated)"


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [
            leaf
            for name, part in value.items()
            for leaf in _leaves(part, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(value, list):
        return [(key, ", ".join(map(str, value)))]
    return [(key, value)]


def _cell(value: Any) -> str:
    shown = (
        "not stated"
        if value is None or value == ""
        else repr(value)
        if isinstance(value, float)
        else str(value)
    )
    return shown.replace("|", "\\|").replace("\n", " ")
