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
from training.allocator import keep_freed_memory
from training.bench_banks import bank_rows
from training.bench_features import Data, Features, read_data
from training.bench_judge import Judged, judge, paired
from training.bench_rows import BANK, CONTROL, Outcome, Row, all_rows
from training.bench_text import earlier, earlier_comparison, page, replaced
from training.terminal import FAILED, exit_codes

app = typer.Typer(pretty_exceptions_enable=False)

_SCORES = ("test", "held", "operating", "planted", "validation")
"""What is kept of an outcome."""


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
    known = {row.name for row in rows}
    for row in [*rows, *(kept for kept in _kept_banks(cache) if kept.name not in known)]:
        places = [_place(cache, row, seed) for seed in row.seeds]
        if re.search(only, row.name) and row.name in known:
            for place, seed in zip(places, row.seeds, strict=True):
                begun = time.monotonic()
                outcome = row.run(features, seed)
                _keep(place, row, seed, outcome, time.monotonic() - begun)
        if not all(place.exists() for place in places):
            continue
        found, seconds = zip(*map(_kept, places), strict=True)
        if len(found[0].test) != len(data.labels):
            told(f"{row.name}: kept scores are of other images; left out")
            continue
        judged.append(judge(row, found, float(np.mean(seconds)), data, draws))
        told(f"{row.group}: {row.name}: AUROC {judged[-1].auroc.value:.4f}, {judged[-1].seconds:.1f} s")
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
        list[Path] | None,
        typer.Option(
            help="Bank built from the training normals; repeatable. NAME-s0, NAME-s1, ... are one row."
        ),
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
        wanted = [*all_rows(), *bank_rows(bank or ())]
        rows = run(official, cache, wanted, _tell, only, draws)
        controls = [one for one in rows if one.row.group == CONTROL]
        others = [one for one in rows if one.row.group != CONTROL]
        best = max(others, key=lambda one: one.auroc.value, default=None)
        gaps = [] if best is None else [(control, paired(best, control)) for control in controls]
        text = out.read_text("utf-8") if out.exists() else ""
        whole = len(controls) == sum(row.group == CONTROL for row in wanted)
        comparison = "" if whole else earlier_comparison(text)
        written = page(official, rows, best, gaps, machine(), draws, wanted, earlier(text), comparison)
        out.write_text(replaced(text, written), encoding="utf-8")
        sys.stdout.write(f"{len(rows)} rows written to {out}\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _place(cache: Path, row: Row, seed: int) -> Path:
    """Return the file of one seed: a run that is killed loses one at most, and several runs may share a cache."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{row.group} {row.name}".lower())[:150]
    return cache / "scores" / f"{name}.{seed}.npz"


def _kept_banks(cache: Path) -> list[Row]:
    """Return the rows of banks that earlier runs scored."""

    def gone(_features: Features, _seed: int) -> Outcome:
        raise BankError("the bank of a kept row is not at hand")

    seeds: dict[str, list[int]] = {}
    for place in sorted((cache / "scores").glob("*.*.npz")):
        with np.load(place, allow_pickle=False) as kept:
            if str(kept["group"]) == BANK:
                seeds.setdefault(str(kept["name"]), []).append(int(kept["seed"]))
    return [Row(BANK, name, gone, tuple(sorted(found))) for name, found in seeds.items()]


def _keep(place: Path, row: Row, seed: int, outcome: Outcome, seconds: float) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_suffix(f".{os.getpid()}.writing")
    with staging.open("wb") as file:
        np.savez(
            file,
            **{name: getattr(outcome, name) for name in _SCORES},
            seconds=np.float64(seconds),
            group=np.str_(row.group),
            name=np.str_(row.name),
            seed=np.int64(seed),
        )
    staging.replace(place)


def _kept(place: Path) -> tuple[Outcome, float]:
    with np.load(place, allow_pickle=False) as kept:
        scores = (kept.get(name, np.empty(0)) for name in _SCORES)  # an earlier version kept fewer
        return Outcome(*scores), float(kept["seconds"])


if __name__ == "__main__":
    keep_freed_memory()
    app()
