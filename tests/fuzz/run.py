"""Runs fuzzing by hand: ``python -m tests.fuzz.run parse --count 50000 --seed 1 --out FOLDER``.

Every input is made of (seed, number), so a run can be repeated and cut into slices. What is found is appended to
``FOLDER/findings.jsonl`` as a recipe that `tests/fuzz/test_fuzz.py` understands; counts of outcomes are printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.fuzz.mutations import Edit, Shape, mutated, to_json
from tests.fuzz.parse_path import FindingError, ParsePath, parse_path
from tests.fuzz.seeds import Seed, seeds

CURRENT, COUNTS = "current", "counts"
HANGS = 60
"""Seconds of the wall's clock after which an input is given up; machines are loaded."""


class Inputs:
    """The inputs of one run, by number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seeds = list(seeds().values())
        self._others = [found.plain for found in self._seeds]
        self._shapes = {found.name: shape_of(found) for found in self._seeds}

    def __getitem__(self, number: int) -> tuple[Seed, list[Edit], bytes]:
        """Return the seed, the edits, and the data set that they make."""
        chance = Random(f"{self._seed}:{number}")
        found = chance.choice(self._seeds)
        edits, content = mutated(found, self._shapes[found.name], chance, self._others)
        return found, edits, content


def shape_of(seed: Seed) -> Shape:
    """Return where the elements of a seed stand."""
    return Shape(
        seed.plain, implicit=seed.syntax == ImplicitVRLittleEndian, little=seed.syntax != ExplicitVRBigEndian
    )


def fuzz_parse(numbers: range, seed: int, whole_every: int, out: Path) -> None:
    """Send inputs down the parse path; each `whole_every`-th goes the whole way. Outcomes go to ``counts``."""
    inputs = Inputs(seed)
    outcomes: Counter[str] = Counter()
    with parse_path() as path:
        for number in numbers:
            (out / CURRENT).write_text(str(number), encoding="ascii")  # if the process dies of it
            outcomes[_one(path, inputs, number, number % whole_every == 0, out)] += 1
            if number % 20 == 0 or number == numbers[-1]:
                (out / COUNTS).write_text(json.dumps(outcomes), encoding="utf-8")


def surviving(run: Callable[[range], None], numbers: range, seed: int, out: Path) -> Counter[str]:
    """Run numbers in a process of their own, and those behind one that it died of in another. Returns outcomes."""
    total: Counter[str] = Counter()
    while numbers:
        (out / COUNTS).write_text("{}", encoding="ascii")
        child = os.fork()
        if child == 0:
            run(numbers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        total += Counter(json.loads((out / COUNTS).read_text(encoding="utf-8")))
        if status == 0:
            return total
        at = int((out / CURRENT).read_text(encoding="ascii"))
        what = f"FINDING died: {os.waitstatus_to_exitcode(status)}"
        found, edits, _ = Inputs(seed)[at]
        _record(out, found.name, edits, at, what, [])
        total[what] += 1
        numbers = range(at + 1, numbers.stop)
    return total


def _one(path: ParsePath, inputs: Inputs, number: int, whole: bool, out: Path) -> str:
    found, edits, content = inputs[number]
    signal.alarm(HANGS)
    try:
        outcome = path(content, found.sop_class, found.sop_instance, found.syntax, whole=whole)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        outcome = f"FINDING {type(error).__name__}: {str(error)[:120]}"
        _record(out, found.name, edits, number, outcome, traceback.format_exc().splitlines()[-12:])
    finally:
        signal.alarm(0)
    return f"{'whole' if whole else 'swift'} {outcome}"


def _record(out: Path, name: str, edits: list[Edit], number: int, what: str, where: list[str]) -> None:
    line = {**json.loads(to_json(name, edits)), "number": number, "what": what, "where": where}
    with (out / "findings.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _hangs(_signal: int, _frame: FrameType | None) -> None:
    raise FindingError(f"no answer within {HANGS} s")


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("parse", "associations", "services"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole-every", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this long, between slices")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _hangs)
    logging.disable(logging.CRITICAL)
    os.nice(10)
    begun, total = time.monotonic(), Counter[str]()
    last = asked.first + asked.count

    def run(numbers: range) -> None:
        if asked.target == "parse":
            fuzz_parse(numbers, asked.seed, asked.whole_every, asked.out)
        else:
            from tests.fuzz.association_path import TARGETS, fuzz_associations

            fuzz_associations(TARGETS[asked.target], numbers, asked.seed, asked.out)

    seeds()
    for first in range(asked.first, last, 500):
        numbers = range(first, min(first + 500, last))
        total += surviving(run, numbers, asked.seed, asked.out)
        (asked.out / f"counts-{asked.target}-{asked.seed}-{asked.first}.json").write_text(
            json.dumps(dict(total.most_common()), indent=1), encoding="utf-8"
        )
        if time.monotonic() - begun > asked.seconds:
            break
    print(f"{sum(total.values())} inputs in {time.monotonic() - begun:.0f} s")
    for outcome, count in total.most_common():
        print(f"{count:8d}  {outcome}")


if __name__ == "__main__":
    main()
