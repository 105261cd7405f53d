"""Trains SALAD on normals: rounds, epochs, memory, and a checkpoint that a killed run goes on from.

Owns the order of a training and its checkpoint. Knows nothing of files of images, calibration or banks. On a
CPU a resumed run ends with the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dicom_node.domain.errors import BankError
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.manifest import NORMALISATIONS
from dicom_node.score.salad import TAU
from dicom_node.score.salad_network import CHANNELS, DIM, SIZE, SaladEncoder, SaladNetwork
from dicom_node.score.views import to_batch
from training import salad_loss, salad_memory
from training.salad_images import Pictures

MEAN, STD = NORMALISATIONS["half"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a training's result follows from, beside the images; the defaults are the paper's.

    Attributes
    ----------
    rounds
        The last round; the first is 0, which has no anchors.
    epochs
        Of each round.
    reconstruction
        "l1", or "mse".
    """

    size: int = SIZE
    channels: int = CHANNELS
    dim: int = DIM
    rounds: int = 10
    epochs: int = 50
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 1e-6
    reconstruction: salad_loss.Reconstruction = "l1"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """Means over one epoch: weighted total, mean of L_ss and L_agg before the weight, reconstruction loss."""

    round: int
    epoch: int
    anchors: int
    total: float
    neighbourhood: float
    reconstruction: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training ends with: the encoder in evaluation mode, memory rows (N, D) float32 of unit length."""

    encoder: SaladEncoder
    memory: npt.NDArray[np.float32]
    curve: list[Epoch]


@dataclass(slots=True)
class _State:
    """Where a training stands after some epoch."""

    network: SaladNetwork
    optimiser: torch.optim.Adam
    memory: torch.Tensor
    anchors: torch.Tensor
    neighbours: torch.Tensor
    curve: list[Epoch] = field(default_factory=list)


def pick_device(wanted: str) -> str:
    """Return the torch device of that name; "auto" is a GPU where there is one.

    Raises
    ------
    BankError
        If this machine, or this build of torch, does not have it.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    have = ("cpu", *(("cuda", *(f"cuda:{number}" for number in range(gpus))) if gpus else ()))
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    if wanted not in have:
        raise BankError(f"device is {wanted!r}; here are {', '.join(have)}, or auto")
    return wanted


def train(
    pictures: Pictures,
    recipe: Recipe,
    *,
    checkpoint: Path,
    progress: Callable[[Epoch], None],
    device: str = "cpu",
    every_seconds: float = 20.0,
) -> Trained:
    """Train on normals to the end of the last round, or go on from a checkpoint of the same training.

    Parameters
    ----------
    pictures
        At least two, of side `recipe.size`; row i of the memory belongs to image i.
    checkpoint
        File; written after an epoch at most every `every_seconds`, and at the end. One of another recipe or of
        other images is not used.
    progress
        Told each epoch that ended.
    device
        A torch device, e.g. "cpu" or "cuda".

    Raises
    ------
    BankError
        If size and network do not fit, or a loss is not finite.
    """
    key = _key(recipe, pictures)
    state = _start(recipe, len(pictures), device)
    _restore(checkpoint, key, state)
    saved = time.monotonic()
    for number in range(len(state.curve), (recipe.rounds + 1) * recipe.epochs):
        at_round, at_epoch = divmod(number, recipe.epochs)
        if at_epoch == 0:
            state.anchors = salad_memory.anchors(state.memory, at_round)
            state.neighbours = salad_memory.neighbourhoods(state.memory)
        epoch = _epoch(state, pictures, recipe, at_round, at_epoch)
        state.curve.append(epoch)
        last = at_round == recipe.rounds and at_epoch == recipe.epochs - 1
        if last or time.monotonic() - saved >= every_seconds:
            _save(checkpoint, key, state)
            saved = time.monotonic()
        progress(epoch)
    encoder = state.network.encoder.eval().requires_grad_(requires_grad=False)
    return Trained(encoder, state.memory.cpu().numpy(), state.curve)


def _start(recipe: Recipe, rows: int, device: str) -> _State:
    if rows < 2:
        raise BankError(f"{rows} images to train on; at least two are needed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        try:
            network = SaladNetwork(recipe.size, recipe.channels, recipe.dim)
        except ValueError as error:
            raise BankError(str(error)) from error
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    memory = salad_memory.initial(rows, recipe.dim, torch.Generator().manual_seed(recipe.seed)).to(device)
    nobody = torch.zeros(rows, dtype=torch.bool, device=device)
    return _State(network, optimiser, memory, nobody, salad_memory.neighbourhoods(memory))


def _epoch(state: _State, pictures: Pictures, recipe: Recipe, at_round: int, at_epoch: int) -> Epoch:
    device = state.memory.device
    rng = np.random.default_rng([recipe.seed, at_round, at_epoch])
    order = rng.permutation(len(pictures))
    flipped = rng.random(len(pictures)) < 0.5
    state.network.train()
    sums = torch.zeros(3, dtype=torch.float64)
    for at in range(0, len(order), recipe.batch):
        rows = order[at : at + recipe.batch]
        images = pictures.take(rows.tolist())
        images[flipped[rows]] = images[flipped[rows], :, ::-1]
        batch = to_batch(images, MEAN, STD).to(device, non_blocking=True)
        own = torch.from_numpy(rows).to(device)
        z, seen = state.network(batch)
        logits = salad_loss.similarities(z, state.memory, TAU)
        losses = salad_loss.mixed_losses(logits, own, state.anchors, state.neighbours)
        reconstruction = salad_loss.reconstruction_loss(seen, batch, recipe.reconstruction)
        total = salad_loss.total_loss(losses, reconstruction)
        state.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        state.optimiser.step()
        salad_memory.update(state.memory, own, z.detach())
        parts = torch.stack([total, losses.mean(), reconstruction]).detach()
        sums += parts.double().cpu() * len(rows)
    means = (sums / len(order)).tolist()
    if not np.isfinite(means).all():
        raise BankError(f"the loss in round {at_round}, epoch {at_epoch} is {means[0]}; it must be finite")
    return Epoch(at_round, at_epoch, int(state.anchors.sum()), *means)


def _key(recipe: Recipe, pictures: Pictures) -> str:
    """Hash what the result follows from."""
    content = [asdict(recipe), [item.pixel_id for item in pictures.items], torch.__version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _save(path: Path, key: str, state: _State) -> None:
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    for number, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in moments.items()}
    tensors |= {"memory": state.memory, "anchors": state.anchors, "neighbours": state.neighbours}
    facts = {"key": key, "curve": json.dumps([asdict(epoch) for epoch in state.curve])}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    staging = path.with_suffix(".writing")
    write_synced(staging, bytes(save_tensors(plain, metadata=facts)))
    staging.replace(path)
    sync_folder(path.parent)


def _restore(path: Path, key: str, state: _State) -> None:
    """Put the checkpoint's values into `state`, if there is one of this very training."""
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(content[8 : 8 + length])["__metadata__"]
    except (FileNotFoundError, safetensors.SafetensorError, ValueError, KeyError):
        return
    if facts.get("key") != key:
        return
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name in [name for name in tensors if name.startswith("optimiser.")]:
        _, number, what = name.split(".")
        moments.setdefault(int(number), {})[what] = tensors.pop(name)
    values: dict[str, Any] = state.optimiser.state_dict()
    state.optimiser.load_state_dict({**values, "state": moments})
    device = state.memory.device
    state.memory, state.anchors, state.neighbours = (
        tensors.pop(name).to(device) for name in ("memory", "anchors", "neighbours")
    )
    state.network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
    state.curve = [Epoch(**values) for values in json.loads(facts["curve"])]
