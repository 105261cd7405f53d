"""The pictures of an evaluation. Owns drawing; every figure in them was computed by `evaluate` or scikit-learn.

Thumbnails show patients' images: they lie beside the results and belong nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score.files import read_image
from training.scored import Row, matched

NORMAL, ABNORMAL, OTHER, GREY = "#0072B2", "#D55E00", "#777777", "#BBBBBB"
"""Told apart by the colour-blind too."""

WORST = 6
"""Errors of each kind that are shown."""

_THUMBNAIL = 320

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def draw_all(
    result: dict[str, Any], rows: Sequence[Row], others: Sequence[Row] | None, out: Path
) -> dict[str, str]:
    """Draw every picture the evaluation has the figures for.

    Returns
    -------
    dict
        File name in `out` and a sentence on what it shows.
    """
    scored = [row for row in rows if row.score is not None]
    labels = np.array([row.label for row in scored], dtype=np.int64)
    scores = np.array([row.score for row in scored], dtype=np.float64)
    theirs = None if others is None else matched(scored, others)
    drawn: dict[str, str] = {}

    def save(name: str, caption: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> None:
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.savefig(out / name)
        drawn[name] = caption

    point = result["threshold"]
    save(
        "roc.png",
        "ROC: sensitivity against false alarms. The dot is the calibrated threshold.",
        (5.2, 5),
        lambda figure: _roc(figure.subplots(), result, labels, scores, theirs),
    )
    save(
        "pr.png",
        "Precision against sensitivity in these images; the dashes are their share of abnormal ones.",
        (5.2, 5),
        lambda figure: _precision(figure.subplots(), result, labels, scores, theirs),
    )
    save(
        "scores.png",
        "Scores of normal and of abnormal images, and the calibrated threshold.",
        (7.5, 4.2),
        lambda figure: _histograms(figure.subplots(), labels, scores, point and point["threshold"]),
    )
    if result["percentiles_of_normals"] is not None:
        save(
            "percentiles.png",
            "Percentiles of the normal images. Where the calibration holds for them, each tenth has a tenth.",
            (7.5, 4),
            lambda figure: _percentiles(figure.subplots(), result["percentiles_of_normals"]),
        )
    bars = _estimates(result)
    if len(bars) > 1:
        save(
            "auroc.png",
            "AUROC with 95 % bootstrap intervals: the score, trivial controls, subgroups.",
            (7.5, 1.2 + 0.32 * len(bars)),
            lambda figure: _forest(figure.subplots(), bars),
        )
    if theirs is not None:
        save(
            "against.png",
            "The same images ranked by both runs: 0 is the most normal, 1 the least.",
            (5.6, 5.4),
            lambda figure: _ranks(figure.subplots(), labels, scores, theirs),
        )
    worst = _worst(scored)
    if worst:
        save(
            "errors.png",
            "The worst errors: the highest-scoring normal and the lowest-scoring abnormal images; "
            "in red those on the wrong side of the threshold.",
            (2.1 * WORST, 5.4),
            lambda figure: _thumbnails(figure, worst),
        )
    return drawn


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _square(axes: Axes, x: str, y: str) -> None:
    _plain(axes)
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)


def _roc(axes: Axes, result: dict[str, Any], labels: Rows, scores: Floats, theirs: Floats | None) -> None:
    _square(axes, "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    if theirs is not None:
        false_rate, true_rate, _ = roc_curve(labels, theirs)
        axes.plot(
            false_rate, true_rate, color=OTHER, label=f"other run, AUROC {result['against']['auroc']:.3f}"
        )
    false_rate, true_rate, _ = roc_curve(labels, scores)
    found = result["auroc"]
    axes.plot(
        false_rate,
        true_rate,
        color=NORMAL,
        linewidth=2,
        label=f"AUROC {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]",
    )
    point = result["threshold"]
    if point is not None:
        specificity, sensitivity = point["specificity"]["value"], point["sensitivity"]["value"]
        axes.plot(
            1 - specificity,
            sensitivity,
            "o",
            color=ABNORMAL,
            markersize=8,
            clip_on=False,
            label=f"threshold: sens. {sensitivity:.3f}, spec. {specificity:.3f}",
        )
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _precision(axes: Axes, result: dict[str, Any], labels: Rows, scores: Floats, theirs: Floats | None) -> None:
    _square(axes, "sensitivity (recall)", "precision")
    axes.axhline(float(labels.mean()), color=GREY, linewidth=1, linestyle="--")
    if theirs is not None:
        precision, recall, _ = precision_recall_curve(labels, theirs)
        value = result["against"]["average_precision"]
        axes.step(recall, precision, where="post", color=OTHER, label=f"other run, AP {value:.3f}")
    precision, recall, _ = precision_recall_curve(labels, scores)
    found = result["average_precision"]
    axes.step(
        recall,
        precision,
        where="post",
        color=NORMAL,
        linewidth=2,
        label=f"AP {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]",
    )
    axes.legend(loc="lower left", frameon=False, fontsize=9)


def _histograms(axes: Axes, labels: Rows, scores: Floats, threshold: float | None) -> None:
    _plain(axes)
    bins = np.histogram_bin_edges(scores, bins=min(50, max(10, len(scores) // 12)))
    for label, colour, name in ((0, NORMAL, "normal"), (1, ABNORMAL, "abnormal")):
        own = scores[labels == label]
        axes.hist(
            own,
            bins=bins.tolist(),
            weights=np.full(len(own), 100 / len(own)),
            color=colour,
            alpha=0.55,
            label=f"{name} ({len(own)})",
        )
    if threshold is not None:
        axes.axvline(
            threshold, color="black", linewidth=1.2, linestyle="--", label=f"threshold {threshold:.4g}"
        )
    axes.set(xlabel="score (higher is further from normal)", ylabel="% of the class")
    axes.legend(frameon=False)


def _percentiles(axes: Axes, found: dict[str, Any]) -> None:
    _plain(axes)
    axes.bar(np.arange(10) * 10 + 5, np.array(found["deciles"]) * 100, width=9, color=NORMAL, alpha=0.8)
    axes.axhline(10, color="black", linewidth=1.2, linestyle="--", label="well calibrated")
    axes.set(xlabel="percentile of the score among the calibration normals", ylabel="% of these normals")
    axes.set_xticks(range(0, 101, 10))
    title = f"{found['images']} normals, {100 * found['above_95']:.1f} % at or above percentile 95"
    axes.set_title(f"{title}; KS {found['ks']:.3f}, p {found['p']:.2g}", fontsize=10)
    axes.legend(frameon=False)


def _estimates(result: dict[str, Any]) -> list[tuple[str, dict[str, float], str]]:
    bars = [("score", result["auroc"], NORMAL)]
    bars += [(f"control: {c['name']}", c["auroc"], OTHER) for c in result["controls"]]
    bars += [
        (f"{s['column']} = {s['value']} ({s['normal']} + {s['abnormal']})"[:60], s["auroc"], ABNORMAL)
        for s in result["subgroups"]
        if s["auroc"] is not None
    ]
    return bars


def _forest(axes: Axes, bars: list[tuple[str, dict[str, float], str]]) -> None:
    _plain(axes)
    for at, (_, found, colour) in enumerate(bars):
        axes.plot([found["low"], found["high"]], [at, at], color=colour, linewidth=2)
        axes.plot(found["value"], at, "o", color=colour)
        axes.annotate(
            f"{found['value']:.3f}",
            (found["value"], at),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.set(xlabel="AUROC", ylim=(len(bars) - 0.5, -0.7))
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)


def _ranks(axes: Axes, labels: Rows, scores: Floats, theirs: Floats) -> None:
    _square(axes, "rank in the other run", "rank in this run")
    last = max(1, len(labels) - 1)
    mine, other = (np.argsort(np.argsort(values)) / last for values in (scores, theirs))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for label, colour, name in ((0, NORMAL, "normal"), (1, ABNORMAL, "abnormal")):
        own = labels == label
        axes.scatter(other[own], mine[own], s=12, color=colour, alpha=0.6, linewidths=0, label=name)
    axes.legend(frameon=False, loc="upper left")


def _worst(scored: Sequence[Row]) -> list[tuple[str, list[tuple[Row, npt.NDArray[np.float32]]]]]:
    """Return the worst readable normal and abnormal images; nothing where no file is at hand."""
    kinds = []
    for label, title in ((0, "normal, highest scores"), (1, "abnormal, lowest scores")):
        own = sorted((row for row in scored if row.label == label), key=lambda row: row.score or 0.0)
        pictures: list[tuple[Row, npt.NDArray[np.float32]]] = []
        for row in own if label else reversed(own):
            if len(pictures) == WORST or not Path(row.path).is_file():
                break
            try:
                grey, _ = read_image(Path(row.path))
            except (CannotDecodeError, CannotUnderstandError):
                continue
            step = max(1, min(grey.shape) // _THUMBNAIL)
            pictures.append((row, grey[::step, ::step]))
        kinds.append((title, pictures))
    return kinds if any(pictures for _, pictures in kinds) else []


def _thumbnails(figure: Figure, kinds: list[tuple[str, list[tuple[Row, npt.NDArray[np.float32]]]]]) -> None:
    places = figure.subplots(2, WORST, squeeze=False)
    for line, (title, pictures) in zip(places, kinds, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, (row, picture) in zip(line, pictures, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            where = "" if row.percentile is None else f", percentile {row.percentile:.1f}"
            wrong = row.threshold is not None and ((row.score or 0.0) > row.threshold) != bool(row.label)
            axes.set_title(f"{row.score:.4g}{where}", fontsize=8, color=ABNORMAL if wrong else "black")
        line[0].annotate(
            title,
            (0, 1),
            (0, 20),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=10,
            weight="bold",
        )
