from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_node.score.bank import load_bank, read_manifest
from dicom_node.score.manifest import Manifest, Population, Preprocessing
from dicom_node.score.salad_facts import SaladFacts
from training import phantoms_cli
from training.build import Order, build
from training.model_card import NAME, model_card

HEX = "0123456789abcdef" * 4


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "ward-7",
        "created_at": "2026-01-02T03:04:05+00:00",
        "files": {"index.faiss": HEX, "head.safetensors": HEX[::-1]},
        "backbone": {
            "name": "lite0", "dim": 1280, "weights_sha256": HEX, "licence": "Apache-2.0",
            "training_data": "ImageNet-1k",
        },
        "preprocessing": Preprocessing(window="voi", resize_short=250),
        "head": "linear 1280-640-640",
        "views": ("squash", "tl-flip"),
        "k": 3,
        "dim": 640,
        "vectors": 1234,
        "normal_images": 617,
        "calibration_images": 101,
        "calibration": "held-out",
        "false_positive_rate": 0.07,
        "threshold": 0.12345678901,
        "population": Population(
            description="Adults standing | upright", site="St Elsewhere", modalities=("DX",), views=("PA",),
            minimum_age=18.0, institutions=("ST ELSEWHERE",),
        ),
        "seen": {"modality": {"DX": 600, "not stated": 17}},
        "recipe": {"seed": 11},
        "versions": {"torch": "2.13"},
    }  # fmt: skip
    return Manifest.model_validate(values | changes)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


@pytest.mark.parametrize(
    "said",
    [
        manifest(),
        manifest(
            kind="salad", views=("squash",), vectors=617, k=100,
            salad=SaladFacts(channels=16, tau=0.1, rounds=10, epochs=50, seed=5, reconstruction="l1"),
        ),
    ],
    ids=["deep-knn", "salad"],
)  # fmt: skip
def test_the_card_tells_everything_that_the_manifest_tells(said: Manifest) -> None:
    card = model_card(said)
    table = card.split("## Everything")[1].replace("\\|", "|")
    for value in leaves(said.model_dump(mode="json")):
        if value not in (None, ""):
            assert str(value) in table, value
    assert said.bank_hash in card


def test_the_words_say_what_people_must_know() -> None:
    card = model_card(manifest())
    for words in (
        "Not a medical device",
        "Adults standing | upright",
        "Site: St Elsewhere.",
        "Scores only: DX; PA; ages 18 to any age years; Institution Name ST ELSEWHERE.",
        "617 normal images, 1234 vectors of 640 numbers",
        "licence: Apache-2.0. Trained on: ImageNet-1k.",
        "Views (2): squash, tl-flip.",
        "neighbour k = 3",
        "101 scores (held-out)",
        "Threshold 0.12345678901: at most 7 % of the calibration scores exceed it.",
    ):
        assert words in card
    assert "every eligible image" in model_card(manifest(population=Population()))


def test_a_built_bank_has_its_card_and_the_hash_does_not_hang_on_it(tmp_path: Path) -> None:
    phantoms_cli.run(tmp_path / "in", 26, form="png", shape=(80, 66))
    order = Order(
        images=tmp_path / "in",
        out=tmp_path / "banks",
        backbone="lite0-random",
        views=("squash",),
        preprocessing=Preprocessing(size=64, resize_short=72),
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    summary = build(order, created_at=at, started=lambda _: None, progress=lambda _: None)
    card = tmp_path / "banks" / "normals" / NAME
    assert card.read_text("utf-8") == model_card(read_manifest(card.parent))
    card.unlink()
    assert load_bank(card.parent).bank_hash == summary.bank_hash
