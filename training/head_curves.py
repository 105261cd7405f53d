"""The loss curves of a head's training, as JSON and as a picture. Owns those two files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dicom_node.score.durable import write_synced
from training.head_recipe import HeadRecord


def write_curves(
    head: Path, record: HeadRecord, history: Sequence[tuple[float, float]]
) -> tuple[Path, Path | None]:
    """Write ``HEAD.training.json`` and ``HEAD.training.png`` beside the head.

    Returns
    -------
    json, png : Path
        The second is None where matplotlib is not installed (extra "training").
    """
    numbers, picture = (head.with_name(f"{head.stem}.training.{kind}") for kind in ("json", "png"))
    content = record.model_dump(mode="json", exclude={"trained_on"})
    content["losses"] = [loss for loss, _ in history]
    content["held_out_losses"] = [held for _, held in history]
    write_synced(numbers, (json.dumps(content, indent=1) + "\n").encode())
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return numbers, None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = range(1, len(history) + 1)
    axes.plot(epochs, content["losses"], label=f"{len(record.trained_on)} normals trained on")
    axes.plot(epochs, content["held_out_losses"], label=f"{record.held_out_images} normals held out")
    axes.axvline(record.epoch, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (-1: the views agree)")
    recipe = record.recipe
    axes.set_title(
        f"{recipe.backbone}, bn {recipe.bn}, lr {recipe.lr:g}, seed {recipe.seed}: epoch {record.epoch}"
    )
    axes.legend()
    figure.savefig(picture, dpi=120)
    return numbers, picture
