"""The benchmark's tables as Markdown, and the published figures beside them. Pure.

Published figures are other people's, from other code, and stand in a table of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from training.bench_choice import least_spread, most_planted, most_validated, spread
from training.bench_features import Data
from training.bench_judge import Judged
from training.bench_rows import CONTROL, ZERO_SHOT, Row
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
  Seconds are those of scoring one seed, on a machine that did other work too; the first row of a view pays for its
  features where the cache has none, the first of several k for their distances. A row that a run neither computes
  nor finds in its cache stays as an earlier run wrote it; to drop one, delete its line.
- Intervals: 95 %, bootstrap by patient within each class, {draws} draws, seed 0. Rows with several seeds show
  means over seeds, and the lowest and the highest AUROC of a seed.
- AUROC, AP, and specificity at a sensitivity: every training normal stands in the bank, as in the published
  protocols. The specificities at .95, .98 and .99 are read off the test images.
- Sens. and spec.: the bank without the held-out normals, at the threshold that 5 % of the held-out normals
  exceed. No test image has a part in that.
- Controls are turned towards the test labels, in their favour.

| configuration | AUROC | 95 % | AP | 95 % | sens. | spec. | spec. at sens. .95 | .98 | .99 | seeds | s |
|---|---|---|---|---|---|---|---|---|---|---|---|"""

_COMPARISON = "### The highest row against every control: "

_BEST = f"""
{_COMPARISON}{{name}}

Paired bootstrap of AUROC over the same draws. The row was found by looking at the table, so its lead over its
neighbours means little; its lead over the controls is what this is about.

| control | difference in AUROC | 95 % | p |
|---|---|---|---|"""

_CHOICE = """
### Configurations chosen without the test's labels

Of {count} rows (`training/bench_choice.py`). Validation: the AUROC of {validation} pneumonias of the training set
against the held-out normals. Drawn opacities: the AUROC by which an opacity drawn into each held-out normal
(`training/planted.py`) stands out from them as they are. Spread: the standard deviation of the logarithm of the
held-out normals' scores. All against a bank without any of these images.

- By labels of training images, the highest validation: {validated}. AUROC on the test {validated_auroc}.
- By normals alone, drawn opacities stand out most: {open_eyed}. AUROC {open_eyed_auroc}.
- By normals alone, the smallest spread, the rule of the first version, among rows with the identity head: {narrow}.
  AUROC {narrow_auroc}.
- Highest, which takes the test's labels to find: {best}. AUROC {best_auroc}.

| configuration, by validation | this | 95 % | drawn opacities | spread | AUROC on the test |
|---|---|---|---|---|---|"""


def replaced(text: str, written: str) -> str:
    """Return the file's text with the part between the markers replaced, or put at its end."""
    part = f"{BEGIN}\n{written.strip()}\n{END}\n"
    if BEGIN in text and END in text:
        before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1].lstrip("\n")
        return before + part + (f"\n{after}" if after else "")
    return f"{text or _TITLE}\n{part}"


def earlier(text: str) -> dict[tuple[str, str], str]:
    """Return the table's lines by group and name, as an earlier run wrote them into the file's text."""
    written = text.partition(BEGIN)[2].partition(END)[0]
    table = written.partition("\n| configuration |")[2].partition("\n\n")[0]
    lines, group = {}, ""
    for line in table.splitlines()[2:]:
        name = line.split(" | ")[0].removeprefix("| ")
        heading = re.match(r"\| \*\*(.*?)\*\* \|", line)
        if heading:
            group = heading.group(1)
        else:
            lines[group, name] = line
    return lines


def earlier_comparison(text: str) -> str:
    """Return the comparison with the controls as an earlier run wrote it, "" if there is none."""
    written = text.partition(BEGIN)[2].partition(END)[0]
    found = re.search(rf"^{_COMPARISON}.*?(?=\n### )", written, re.MULTILINE | re.DOTALL)
    return found.group().rstrip() if found else ""


def page(
    data: Data,
    rows: Sequence[Judged],
    best: Judged | None,
    gaps: Sequence[tuple[Judged, Difference]],
    machine: str,
    draws: int,
    order: Sequence[Row] = (),
    before: Mapping[tuple[str, str], str] = MappingProxyType({}),
    kept_comparison: str = "",
) -> str:
    """Return everything between the markers.

    Parameters
    ----------
    order
        Rows in the order of the table; others come after them.
    before
        Lines of an earlier run, for rows that are not among `rows`.
    kept_comparison
        Of an earlier run, in the place of `best` and `gaps`.
    """
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
    told = {**before, **{(one.row.group, one.row.name): _line(one) for one in rows}}
    places = dict.fromkeys([*((row.group, row.name) for row in order), *told])
    groups = dict.fromkeys(group for group, _ in places)
    for group in groups:
        members = [told[place] for place in places if place[0] == group and place in told]
        lines += [f"| **{group}** |" + " |" * 11, *members] if members else []
    lines += _choice(rows, len(data.validation.files))
    if kept_comparison:
        lines += ["", kept_comparison]
    elif best is not None:
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


def _choice(rows: Sequence[Judged], validation: int) -> list[str]:
    asked = [one for one in rows if one.planted is not None]
    if not asked:
        return []
    narrow = least_spread([row for row in asked if row.row.group == ZERO_SHOT] or asked)
    chosen = {
        "narrow": narrow,
        "open_eyed": most_planted(asked),
        "validated": most_validated(asked),
        "best": max(asked, key=lambda row: row.auroc.value),
    }
    told = {name: one.row.name for name, one in chosen.items()}
    told |= {f"{name}_auroc": _value(one) for name, one in chosen.items()}
    controls = [one for one in rows if one.planted is None and one.validation is not None]
    ordered = sorted([*asked, *controls], key=_validated, reverse=True)
    return [_CHOICE.format(count=len(asked), validation=validation, **told), *map(_choice_line, ordered)]


def _validated(one: Judged) -> float:
    return one.validation.value if one.validation else 0.0


def _choice_line(one: Judged) -> str:
    name = f"control: {one.row.name}" if one.row.group == CONTROL else one.row.name
    planted = "" if one.planted is None else f"{one.planted:.3f}"
    found = one.validation
    validation = ("", "") if found is None else (f"{found.value:.3f}", _span(found.low, found.high))
    spread_ = "" if one.planted is None else f"{spread(one):.3f}"
    return f"| {' | '.join((name, *validation, planted, spread_, f'{one.auroc.value:.3f}'))} |"


def _value(one: Judged) -> str:
    return f"{one.auroc.value:.3f} [{one.auroc.low:.3f}, {one.auroc.high:.3f}]"


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
