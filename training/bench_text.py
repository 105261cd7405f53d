"""The benchmark's tables as Markdown, and the published figures beside them. Pure.

Published figures are other people's, from other code, and stand in a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from training.bench_features import Data
from training.bench_judge import Judged
from training.bootstrap import Difference

BEGIN = "<!-- bench-science begins: written by `make bench-science`, changes are lost -->"
END = "<!-- bench-science ends -->"

_PUBLISHED = (
    ("MemAE", ".778", "as tabled in the PPAD repository's README"),
    ("SALAD", ".827 ± .008", "same"),
    ("SQUID", ".876 ± .015", "same"),
    ("AnatPaste", ".921", "PMC10331430; perhaps a split of its own"),
    ("CheXzero, zero-shot (learned from reports)", ".927", "PPAD README"),
    ("PPAD (text prompts)", ".967 ± .004", "PPAD README"),
)

_TITLE = "# Benchmarks\n"

_HEAD = """\
## Science: ZhangLab (Kermany et al.), official split

{normals} training normals ({held} of them, by patient, held out for the threshold); test {test_normal} normal,
{test_sick} pneumonia. Children of one hospital, JPEG at 224 x 224.

**The set is confounded:** its two classes can be told apart by how the files were made, as the controls in the
table show. It measures code against code and against published figures on the same split; it is no clinical
evidence.

- Machine: {machine}.
- Command: `make bench-science` with the set in `DATA`; for one row `make bench-science ONLY='its name'`.
  Seconds are those of scoring one seed with the features in the cache, on a machine that did other work too;
  rows that differ only in k share their distances, which the first of them pays.
- Intervals: 95 %, bootstrap by patient within each class, {draws} draws, seed 0. Rows with several seeds show
  means over seeds, and the lowest and the highest AUROC of a seed.
- AUROC, AP, and specificity at a sensitivity: every training normal stands in the bank, as in the published
  protocols. The specificities at .95, .98 and .99 are read off the test images.
- Sens. and spec.: the bank without the held-out normals, at the threshold that 5 % of the held-out normals
  exceed. No test image has a part in that.
- Controls are turned towards the test labels, in their favour.

| configuration | AUROC | 95 % | AP | 95 % | sens. | spec. | spec. at sens. .95 | .98 | .99 | seeds | s |
|---|---|---|---|---|---|---|---|---|---|---|---|"""

_BEST = """
### The highest row against every control: {name}

Paired bootstrap of AUROC over the same draws. The row was found by looking at the table, so its lead over its
neighbours means little; its lead over the controls is what this is about.

| control | difference in AUROC | 95 % | p |
|---|---|---|---|"""


def replaced(text: str, written: str) -> str:
    """Return the file's text with the part between the markers replaced, or put at its end."""
    part = f"{BEGIN}\n{written.strip()}\n{END}\n"
    if BEGIN in text and END in text:
        before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1].lstrip("\n")
        return before + part + (f"\n{after}" if after else "")
    return f"{text or _TITLE}\n{part}"


def page(
    data: Data,
    rows: Sequence[Judged],
    best: Judged | None,
    gaps: Sequence[tuple[Judged, Difference]],
    machine: str,
    draws: int,
) -> str:
    """Return everything between the markers."""
    sick = int(np.sum(data.labels))
    head = _HEAD.format(
        normals=len(data.train.files),
        held=int(data.held_out.sum()),
        test_normal=len(data.labels) - sick,
        test_sick=sick,
        machine=machine,
        draws=draws,
    )
    lines = [head]
    for group, members in groupby(rows, key=lambda one: one.row.group):
        lines.append(f"| **{group}** |" + " |" * 11)
        lines += [_line(one) for one in members]
    if best is not None:
        lines.append(_BEST.format(name=best.row.name))
        lines += [
            f"| {one.row.name} | {gap.value:+.3f} | {_span(gap.low, gap.high)} | {gap.p:.2g} |"
            for one, gap in gaps
        ]
    lines += [
        "",
        "### Published figures, not ours",
        "",
        "| method | AUROC | source |",
        "|---|---|---|",
        *(f"| {method} | {value} | {source} |" for method, value, source in _PUBLISHED),
    ]
    return "\n".join(lines) + "\n"


def _line(one: Judged) -> str:
    seeds = f"{len(one.row.seeds)}: {one.lowest:.3f} to {one.highest:.3f}" if len(one.row.seeds) > 1 else "1"
    cells = [
        one.row.name,
        f"{one.auroc.value:.3f}",
        _span(one.auroc.low, one.auroc.high),
        f"{one.precision.value:.3f}",
        _span(one.precision.low, one.precision.high),
        f"{one.sensitivity:.3f}",
        f"{one.specificity:.3f}",
        *(f"{value:.3f}" for value in one.specificity_at),
        seeds,
        f"{one.seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _span(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"
