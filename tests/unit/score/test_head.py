from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from dicom_node.domain.errors import BankError
from dicom_node.score.head import Head, load_head, save_head

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 8)).astype(np.float32)
LINEAR = Head(
    (
        ("adaptor", RNG.normal(size=(4, 8)).astype(np.float32), RNG.normal(size=4).astype(np.float32)),
        ("predictor", RNG.normal(size=(4, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)),
    )
)


def test_the_identity_only_normalises() -> None:
    out = Head().apply(FEATURES)
    assert np.allclose(out, FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True))
    assert out.dtype == np.float32


def test_a_linear_head_is_the_predictor_of_the_adaptor() -> None:
    (_, a, b), (_, c, d) = LINEAR.layers
    by_hand = (FEATURES @ a.T + b) @ c.T + d
    assert np.allclose(
        LINEAR.apply(FEATURES), by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True), atol=1e-6
    )
    assert LINEAR.description == "linear 8-4-4"


@pytest.mark.parametrize("head", [Head(), LINEAR])
def test_a_head_comes_back_from_its_file_as_it_was(head: Head) -> None:
    back = load_head(save_head(head))
    assert back.kind == head.kind
    assert np.array_equal(back.apply(FEATURES), head.apply(FEATURES))


def test_a_head_with_its_recipe_comes_back_and_is_always_written_the_same() -> None:
    head = Head(LINEAR.layers, '{"lr": 1e-05}')
    written = {save_head(head) for _ in range(20)}
    assert len(written) == 1
    back = load_head(written.pop())
    assert back.recipe == '{"lr": 1e-05}'
    assert np.array_equal(back.apply(FEATURES), head.apply(FEATURES))


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(BankError, match="takes 8 features, the backbone gives 9"):
        LINEAR.apply(np.ones((1, 9), dtype=np.float32))


def test_an_embedding_without_direction_is_refused() -> None:
    for vector in (np.zeros((1, 8)), np.full((1, 8), np.nan)):
        with pytest.raises(BankError, match="zero or not finite"):
            Head().apply(vector.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"not safetensors at all", "cannot be read"),
        (save({}, metadata={"kind": "forest"}), "'forest'"),
        (save({}), "None"),
        (save({"adaptor.weight": np.ones((2, 2))}, metadata={"kind": "identity"}), "identity"),
        (save({"extra.weight": np.ones((2, 2))}, metadata={"kind": "linear"}), "unknown tensors"),
        (
            save(
                {"adaptor.weight": np.ones((3, 2)), "predictor.weight": np.ones((2, 2))},
                metadata={"kind": "linear"},
            ),
            "predictor takes 2, the layer before gives 3",
        ),
    ],
)
def test_a_file_that_is_no_head_is_refused(content: bytes, seen: str) -> None:
    with pytest.raises(BankError, match=seen):
        load_head(content)
