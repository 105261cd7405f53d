"""A bank's calibration as a drawing: numbers for a template to draw. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.reading import BankView

WIDTH, HEIGHT = 320.0, 160.0
_LEFT, _BOTTOM, _TOP = 40.0, 24.0, 8.0


@dataclass(frozen=True, slots=True)
class Plot:
    """Scores of a bank's calibration normals against percent. Coordinates are of a box of WIDTH x HEIGHT.

    Attributes
    ----------
    line
        Points of an SVG polyline.
    threshold
        Height of the threshold.
    scores
        (height, text) of ticks; the percent ticks are (x, text).
    """

    line: str
    threshold: float
    scores: tuple[tuple[float, str], ...]
    percents: tuple[tuple[float, str], ...]


def calibration_plot(bank: BankView) -> Plot | None:
    """Return the plot of a bank; None where it has no calibration scores."""
    if len(bank.percentiles) < 2:
        return None
    values = [score for _, score in bank.percentiles]
    least, most = min(*values, bank.threshold), max(*values, bank.threshold)
    span = (most - least) or 1.0

    def up(score: float) -> float:
        return round(HEIGHT - _BOTTOM - (score - least) / span * (HEIGHT - _BOTTOM - _TOP), 1)

    def across(percent: float) -> float:
        return round(_LEFT + percent / 100.0 * (WIDTH - _LEFT - 8.0), 1)

    return Plot(
        line=" ".join(f"{across(percent)},{up(score)}" for percent, score in bank.percentiles),
        threshold=up(bank.threshold),
        scores=tuple((up(s), f"{s:.3g}") for s in (least, (least + most) / 2, most)),
        percents=tuple((across(p), f"{p:.0f}") for p in (0.0, 50.0, 95.0)),
    )
