from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training.siamese import SiameseHead, negative_cosine, new_head, siamese_loss

RNG = np.random.default_rng(0)
ONE, TWO = (torch.from_numpy(RNG.normal(size=(7, 12)).astype(np.float32)) for _ in range(2))


def reference(head: SiameseHead, one: np.ndarray, two: np.ndarray) -> float:
    """Return L as science.md writes it, in plain numpy."""
    state = {name: value.numpy().astype(float) for name, value in head.state_dict().items()}

    def g(f: np.ndarray) -> np.ndarray:
        return f @ state["adaptor.weight"].T + state["adaptor.bias"]

    def q(z: np.ndarray) -> np.ndarray:
        return z @ state["predictor.weight"].T + state["predictor.bias"]

    def d(p: np.ndarray, z: np.ndarray) -> float:
        return -np.mean((p * z).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(z, axis=1))

    z1, z2 = g(one), g(two)
    return 0.5 * d(q(z1), z2) + 0.5 * d(q(z2), z1)


def test_parallel_vectors_have_minus_one_opposite_ones_one_and_orthogonal_ones_zero() -> None:
    p = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert negative_cosine(p, 3 * p).item() == pytest.approx(-1.0)
    assert negative_cosine(p, -p).item() == pytest.approx(1.0)
    assert negative_cosine(p, p.flip(1)).item() == pytest.approx(0.0)
    assert negative_cosine(p, torch.tensor([[1.0, 1.0], [1.0, 1.0]])).item() == pytest.approx(-(0.5**0.5))


def test_the_loss_is_the_papers_formula() -> None:
    head = new_head(12, 3)
    assert siamese_loss(head, ONE, TWO).item() == pytest.approx(
        reference(head, ONE.numpy(), TWO.numpy()), abs=1e-5
    )


def test_a_predictor_that_is_the_identity_on_equal_views_has_the_least_loss() -> None:
    head = new_head(12, 3)
    with torch.no_grad():
        head.predictor.weight.copy_(torch.eye(6))
        head.predictor.bias.zero_()
    assert siamese_loss(head, ONE, ONE).item() == pytest.approx(-1.0, abs=1e-6)


def test_no_gradient_flows_through_z() -> None:
    head = new_head(12, 3)
    z1, p1 = head(ONE)
    z2, p2 = head(TWO)
    one_way = 0.5 * negative_cosine(p1, z2.clone()) + 0.5 * negative_cosine(p2, z1.clone())
    constants = 0.5 * negative_cosine(p1, z2.detach().clone()) + 0.5 * negative_cosine(p2, z1.detach().clone())
    ours = torch.autograd.grad(siamese_loss(head, ONE, TWO), list(head.parameters()))
    for loss in (one_way, constants):
        expected = torch.autograd.grad(loss, list(head.parameters()), retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    cosine = nn.functional.cosine_similarity
    through = torch.autograd.grad(
        -0.5 * cosine(p1, z2).mean() - 0.5 * cosine(p2, z1).mean(), list(head.parameters())
    )
    assert not torch.allclose(ours[0], through[0], atol=1e-4)


def test_layers_are_d_to_half_to_half_in_pytorchs_initialisation_and_follow_from_the_seed() -> None:
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    head = new_head(12, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    adaptor, predictor = nn.Linear(12, 6), nn.Linear(6, 6)
    assert torch.equal(head.adaptor.weight, adaptor.weight)
    assert torch.equal(head.adaptor.bias, adaptor.bias)
    assert torch.equal(head.predictor.weight, predictor.weight)
    assert not torch.equal(head.adaptor.weight, new_head(12, 6).adaptor.weight)


def test_the_nodes_head_is_the_same_function() -> None:
    head = new_head(12, 3)
    with torch.no_grad():
        p = head(ONE)[1].numpy()
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    assert np.abs(head.to_head().apply(ONE.numpy()) - unit).max() < 1e-6
    assert head.to_head().description == "linear 12-6-6"
