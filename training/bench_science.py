"""``make bench-science``: runs the rows on ZhangLab's official split and writes the table of ``BENCHMARKS.md``.

Owns running, keeping and judging of rows. How a row comes by its scores is for `bench_rows` to know.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from dicom_node.domain.errors import BankError
from training import bootstrap
from training.bench_banks import bank_row
from training.bench_features import Data, Features, read_data
from training.bench_judge import Judged, judge, paired
from training.bench_rows import BANK, CONTROL, Outcome, Row, all_rows
from training.bench_text import page, replaced
from training.terminal import FAILED, exit_codes

app = typer.Typer(pretty_exceptions_enable=False)


def run(
    data: Data,
    cache: Path,
    rows: Sequence[Row],
    told: Callable[[str], None],
    only: str = "",
    draws: int = bootstrap.DRAWS,
) -> list[Judged]:
    """Compute the rows whose name matches `only`; take the others from the cache, or leave them out.

    Parameters
    ----------
    cache
        Folder for features and scores, outside the repository.
    only
        A regular expression found in the names; "" computes every row.
    """
    features = Features(data, cache, told)
    judged = []
    known = {_place(cache, row) for row in rows}
    for row in [*rows, *_kept_banks(cache, known)]:
        place = _place(cache, row)
        if re.search(only, row.name) and place in known:
            begun = time.monotonic()
            outcomes = [row.run(features, seed) for seed in row.seeds]
            _keep(place, row, outcomes, (time.monotonic() - begun) / len(row.seeds))
        if not place.exists():
            continue
        found, seconds = _kept(place)
        if len(found[0].test) != len(data.labels):
            told(f"{row.name}: kept scores are of other images; left out")
            continue
        judged.append(judge(row, found, seconds, data, draws))
        told(f"{row.group}: {row.name}: AUROC {judged[-1].auroc.value:.4f}, {seconds:.1f} s")
    return judged


def machine() -> str:
    """Return what the figures were measured on."""
    facts = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.*)$", facts.read_text(), re.MULTILINE) if facts.is_file() else []
    name = names[0] if names else platform.processor() or platform.machine()
    cuda = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {name}{cuda}, Python {platform.python_version()}, torch {torch.__version__}"


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="ZhangLab's set: train and test, NORMAL and PNEUMONIA in each.")],
    cache: Annotated[Path, typer.Option(help="Folder for features and scores, outside the repository.")],
    out: Annotated[Path, typer.Option(help="Markdown file whose part between the two markers is replaced.")],
    bank: Annotated[
        list[Path] | None, typer.Option(help="Bank built from the training normals: one more row; repeatable.")
    ] = None,
    only: Annotated[str, typer.Option(help="Compute the rows whose name matches; keep the others.")] = "",
    draws: Annotated[int, typer.Option("--bootstrap", min=100, help="Draws of the bootstrap.")] = 2000,
) -> None:
    """Run the benchmark and write its table."""
    if not data.is_dir():
        sys.stdout.write(f"skipped: {data} is absent; see the data section of the file it would write\n")
        return
    with exit_codes(FAILED):
        official = read_data(data)
        wanted = [*all_rows(), *(bank_row(folder) for folder in bank or ())]
        rows = run(official, cache, wanted, _tell, only, draws)
        controls = [one for one in rows if one.row.group == CONTROL]
        others = [one for one in rows if one.row.group != CONTROL]
        best = max(others, key=lambda one: one.auroc.value, default=None)
        gaps = [] if best is None else [(control, paired(best, control)) for control in controls]
        written = page(official, rows, best, gaps, machine(), draws)
        out.write_text(replaced(out.read_text("utf-8") if out.exists() else "", written), encoding="utf-8")
        sys.stdout.write(f"{len(rows)} rows written to {out}\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _place(cache: Path, row: Row) -> Path:
    return cache / "scores" / (re.sub(r"[^a-z0-9]+", "-", f"{row.group} {row.name}".lower())[:150] + ".npz")


def _kept_banks(cache: Path, known: set[Path]) -> list[Row]:
    """Return the rows of banks that an earlier run scored."""

    def gone(_features: Features, _seed: int) -> Outcome:
        raise BankError("the bank of a kept row is not at hand")

    rows = []
    for place in sorted((cache / "scores").glob("*.npz")):
        with np.load(place, allow_pickle=False) as kept:
            group, name = str(kept["group"]), str(kept["name"])
        if group == BANK and place not in known:
            rows.append(Row(BANK, name, gone))
    return rows


def _keep(place: Path, row: Row, outcomes: Sequence[Outcome], seconds: float) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_suffix(".writing")
    with staging.open("wb") as file:
        np.savez(
            file,
            test=np.stack([one.test for one in outcomes]),
            held=np.stack([one.held for one in outcomes]),
            operating=np.stack([one.operating for one in outcomes]),
            seconds=np.float64(seconds),
            group=np.str_(row.group),
            name=np.str_(row.name),
        )
    staging.replace(place)


def _kept(place: Path) -> tuple[list[Outcome], float]:
    with np.load(place, allow_pickle=False) as kept:
        parts = zip(kept["test"], kept["held"], kept["operating"], strict=True)
        return [Outcome(*part) for part in parts], float(kept["seconds"])


if __name__ == "__main__":
    app()
