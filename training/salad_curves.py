"""The loss curves of a SALAD training, as JSON and as a picture. Owns those two files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dicom_node.score.durable import write_synced
from training.train_salad import Epoch, Recipe


def write_curves(out: Path, name: str, recipe: Recipe, curve: Sequence[Epoch]) -> tuple[Path, Path | None]:
    """Write ``NAME.training.json`` and ``NAME.training.png`` into the folder of banks, beside the bank.

    Returns
    -------
    json, png : Path
        The second is None where matplotlib is not installed (extra "training").
    """
    numbers, picture = out / f"{name}.training.json", out / f"{name}.training.png"
    content = {"recipe": asdict(recipe), "epochs": [asdict(epoch) for epoch in curve]}
    write_synced(numbers, (json.dumps(content, indent=1) + "\n").encode())
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return numbers, None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    steps = range(1, len(curve) + 1)
    left = figure.add_subplot()
    left.plot(steps, [epoch.neighbourhood for epoch in curve], color="tab:blue")
    left.set_xlabel("epoch")
    left.set_ylabel("instance and neighbourhood loss, nats", color="tab:blue")
    right = left.twinx()
    right.plot(steps, [epoch.reconstruction for epoch in curve], color="tab:orange")
    right.set_ylabel(f"reconstruction loss ({recipe.reconstruction})", color="tab:orange")
    for number, epoch in enumerate(curve):
        if epoch.epoch == 0 and epoch.round > 0:
            left.axvline(number + 0.5, color="0.85", linewidth=0.8, zorder=0)
    left.set_title(f"SALAD, rounds 0 to {curve[-1].round}; a line begins a round")
    figure.savefig(picture, dpi=120)
    return numbers, picture
