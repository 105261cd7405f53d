"""The epochs of a head's training: steps, held-out loss, what is kept after each. Does no I/O of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm
from dicom_node.score.backbone import TorchBackbone
from training.head_checkpoint import Progress, State
from training.head_pairs import Pairs
from training.head_recipe import HeadRecipe
from training.siamese import SiameseHead, new_head, siamese_loss


def run_epochs(
    recipe: HeadRecipe,
    pairs: Pairs,
    backbone: TorchBackbone,
    done: Progress,
    keep: Callable[[Progress], None],
    device: str = "cpu",
) -> None:
    """Run the epochs that are missing in `done`, in place.

    Parameters
    ----------
    keep
        Called after each epoch with what has come of it.

    Raises
    ------
    BankError
        If a loss is not finite.
    """
    head = new_head(backbone.dim, recipe.seed).to(device)
    optimiser = torch.optim.Adam(head.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=0.0)
    adapting = recipe.bn == "adapt"
    if done.history:
        head.load_state_dict(done.head)
        optimiser.load_state_dict(
            {"state": _unflat(done.adam), "param_groups": optimiser.state_dict()["param_groups"]}
        )
        if adapting:
            batch_norm.restore(backbone.module, done.statistics)
    for number in range(len(done.history) + 1, recipe.epochs + 1):
        loss = _train_epoch(head, optimiser, pairs.epoch(number))
        with torch.no_grad():
            held_out = _mean((siamese_loss(head, one, two), len(one)) for one, two in pairs.held_out())
        if not all(map(math.isfinite, (loss, held_out))):
            raise BankError(f"epoch {number}: the loss is {loss}, held out {held_out}; lower the learning rate")
        best = not done.history or held_out < min(held for _, held in done.history)
        done.history.append((loss, held_out))
        done.head, done.adam = _copy(head.state_dict()), _flat(optimiser)
        done.statistics = batch_norm.statistics(backbone.module) if adapting else {}
        if best:
            done.best_epoch, done.best_head, done.best_statistics = number, done.head, done.statistics
        keep(done)


def _train_epoch(
    head: SiameseHead, optimiser: torch.optim.Optimizer, epoch: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    def steps() -> Iterator[tuple[torch.Tensor, int]]:
        for one, two in epoch:
            loss = siamese_loss(head, one, two)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            yield loss.detach(), len(one)

    return _mean(steps())


def _mean(losses: Iterator[tuple[torch.Tensor, int]]) -> float:
    total, count = 0.0, 0
    for loss, images in losses:
        total, count = total + float(loss) * images, count + images
    return total / count


def _copy(state: State) -> State:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _flat(optimiser: torch.optim.Optimizer) -> State:
    state = optimiser.state_dict()["state"]
    return {f"{at}/{name}": value.detach().cpu().clone() for at in state for name, value in state[at].items()}


def _unflat(values: State) -> dict[int, State]:
    state: dict[int, State] = {}
    for key, value in values.items():
        at, _, name = key.partition("/")
        state.setdefault(int(at), {})[name] = value
    return state
