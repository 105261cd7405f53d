"""SALAD's losses, memory and anchors: known answers, and plain numpy beside them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.functional import normalize

from training import salad_loss, salad_memory


def rows(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def softmax(z: torch.Tensor, memory: torch.Tensor) -> npt.NDArray[np.float64]:
    """P_i = softmax(z_i M' / 0.1), in numpy."""
    logits = z.double().numpy() @ memory.double().numpy().T / 0.1
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def test_the_first_memory_is_uniform_within_its_bound_and_of_unit_length_on_average() -> None:
    memory = salad_memory.initial(4000, 200, torch.Generator().manual_seed(3))
    bound = 1 / math.sqrt(200 / 3)
    assert memory.shape == (4000, 200)
    assert memory.abs().max() <= bound
    assert memory.abs().max() > 0.999 * bound
    assert float((memory**2).sum(1).mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(memory, salad_memory.initial(4000, 200, torch.Generator().manual_seed(3)))


def test_an_updated_row_is_the_unit_vector_half_way_and_others_stay() -> None:
    memory = torch.eye(3)
    salad_memory.update(memory, torch.tensor([0]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.allclose(memory[0], torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0]))
    assert torch.equal(memory[1:], torch.eye(3)[1:])


def test_the_update_rule_agrees_with_numpy_and_keeps_rows_of_unit_length() -> None:
    memory, z, which = (
        salad_memory.initial(20, 8, torch.Generator().manual_seed(0)),
        rows(5, 8),
        [3, 0, 19, 7, 8],
    )
    mixed = 0.5 * memory.numpy()[which] + 0.5 * z.numpy()
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    salad_memory.update(memory, torch.tensor(which), z)
    assert np.allclose(memory.numpy()[which], expected, atol=1e-6)
    assert torch.allclose(memory[which].norm(dim=1), torch.ones(5))


def test_the_losses_are_minus_the_logarithm_of_the_softmaxs_probabilities() -> None:
    memory, z, own = rows(30, 16, 1), rows(6, 16, 2), torch.tensor([4, 0, 29, 11, 11, 7])
    near = salad_memory.neighbourhoods(memory)
    p = softmax(z, memory)
    logits = salad_loss.similarities(z, memory)
    assert np.allclose(torch.softmax(logits, 1).numpy(), p, atol=1e-6)
    single = -np.log([p[i, row] for i, row in enumerate(own.tolist())])
    summed = -np.log([p[i, row] + p[i, near[row].numpy()].sum() for i, row in enumerate(own.tolist())])
    assert np.allclose(salad_loss.instance_losses(logits, own).numpy(), single, atol=1e-4)
    assert np.allclose(salad_loss.neighbourhood_losses(logits, own, near[own]).numpy(), summed, atol=1e-4)


def test_a_neighbourhood_of_nobody_is_the_instance_loss_and_one_of_everybody_costs_nothing() -> None:
    memory, own = rows(12, 8, 1), torch.tensor([2, 5])
    logits = salad_loss.similarities(rows(2, 8, 2), memory)
    nobody = torch.empty((2, 0), dtype=torch.int64)
    everybody = torch.stack([torch.tensor([j for j in range(12) if j != i]) for i in own.tolist()])
    assert torch.allclose(
        salad_loss.neighbourhood_losses(logits, own, nobody), salad_loss.instance_losses(logits, own)
    )
    assert salad_loss.neighbourhood_losses(logits, own, everybody).abs().max() < 1e-5


def test_anchors_and_no_others_are_judged_by_their_neighbourhood() -> None:
    memory, own = rows(15, 8, 1), torch.tensor([2, 5, 9])
    near, logits = salad_memory.neighbourhoods(memory), salad_loss.similarities(rows(3, 8, 2), memory)
    anchors = torch.zeros(15, dtype=torch.bool)
    anchors[5] = True
    mixed = salad_loss.mixed_losses(logits, own, anchors, near)
    single, summed = (
        salad_loss.instance_losses(logits, own),
        salad_loss.neighbourhood_losses(logits, own, near[own]),
    )
    assert torch.equal(mixed, torch.stack([single[0], summed[1], single[2]]))
    assert summed[1] < single[1]


def test_the_total_is_a_quarter_of_the_mean_and_the_whole_reconstruction() -> None:
    seen, image = torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]])
    assert float(salad_loss.reconstruction_loss(seen, image)) == 0.75
    assert float(salad_loss.reconstruction_loss(seen, image, "mse")) == 0.625
    assert float(salad_loss.total_loss(torch.tensor([1.0, 3.0]), torch.tensor(0.75))) == 0.25 * 2 + 0.75


@pytest.mark.parametrize(("at_round", "count"), [(0, 0), (1, 134), (3, 402), (9, 1206), (10, 1341)])
def test_a_tenth_more_of_the_rows_are_anchors_each_round(at_round: int, count: int) -> None:
    assert salad_memory.anchor_count(at_round, 1341) == count == int(0.1 * at_round * 1341)


def test_whole_numbers_lose_no_anchor_to_rounding_anywhere() -> None:
    for at_round in range(11):
        for total in range(1, 3000, 7):
            count = salad_memory.anchor_count(at_round, total)
            assert count <= at_round * total / 10 < count + 1
            assert abs(count - int(0.1 * at_round * total)) <= 1


def test_the_entropy_agrees_with_numpy_and_is_lowest_for_a_row_far_from_others() -> None:
    memory = rows(40, 6, 5)
    p = softmax(memory, memory)
    assert np.allclose(salad_memory.entropies(memory).numpy(), -(p * np.log(p)).sum(axis=1), atol=1e-5)
    same = torch.cat([torch.ones(9, 4) / 2, torch.tensor([[0.5, -0.5, 0.5, -0.5]])])
    values = salad_memory.entropies(same)
    assert float(values[0]) == pytest.approx(math.log(9), abs=0.02)
    assert int(values.argmin()) == 9


def test_the_rows_of_lowest_entropy_become_anchors() -> None:
    memory = rows(50, 6, 5)
    lowest = np.argsort(salad_memory.entropies(memory).numpy(), kind="stable")
    for at_round in (0, 1, 4, 10):
        chosen = salad_memory.anchors(memory, at_round)
        assert set(chosen.nonzero()[:, 0].tolist()) == set(lowest[: 5 * at_round].tolist())


def test_a_neighbourhood_is_the_ten_nearest_rows_without_the_row_itself() -> None:
    memory = rows(1500, 8, 6)
    near = salad_memory.neighbourhoods(memory)
    assert near.shape == (1500, 10)
    cosines = memory.double().numpy() @ memory.double().numpy().T
    np.fill_diagonal(cosines, -2)
    expected = np.sort(cosines, axis=1)[:, -10:]
    found = np.sort(np.take_along_axis(cosines, near.numpy(), axis=1), axis=1)
    assert np.allclose(found, expected, atol=1e-6)
    assert salad_memory.neighbourhoods(rows(4, 8)).shape == (4, 3)
