"""A bank of a million vectors: how long it takes to build, load and answer, in how much memory, with what recall.

Printed by ``pytest tests/bench/bench_million.py --override-ini "python_files=bench_*.py" --capture=no``; needs about
17 GB of disk in the folder for temporary files. IMAGES and KINDS may stand in the environment. Each step is a
process of its own. "Own" memory is what the system cannot take back (RssAnon, peak of a sample every 50 ms); pages
of mapped files come on top where there is room for them.

The vectors are synthetic, 10 an image: a mean of squared length 0.785 and normally distributed around it with the
spectrum that Lite0's features of the 1341 normals of ZhangLab have; 70 % of the variance lies between images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dicom_node.score import knn
from dicom_node.score.bank import INDEX, load_bank, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.durable import write_synced_parts
from dicom_node.score.head import Head
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.view_names import DEFAULT_VIEWS
from training.calibrate import score_against
from training.index import build_index
from training.order import IndexOrder

IMAGES = int(os.environ.get("IMAGES", "100000"))
KINDS = os.environ.get("KINDS", "flat,ivf-flat,ivf-fp16").split(",")
VIEWS, DIM, HELD_OUT, ASKED = len(DEFAULT_VIEWS), 1280, 100, 10
MEAN, BETWEEN_IMAGES = 0.785, 0.7
PLACES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1280)
SPECTRUM = (1.0, 0.624, 0.438, 0.204, 0.107, 0.0496, 0.0196, 0.00766, 0.00278, 0.000693, 0.00002)
ROOT = Path(__file__).resolve().parents[2]


def vectors(count: int, seed: int) -> np.ndarray:
    """Return (count, VIEWS, DIM) float32 unit vectors."""
    random = np.random.default_rng(seed)
    spectrum = np.exp(np.interp(np.log(np.arange(1, DIM)), np.log(PLACES), np.log(SPECTRUM)))
    spread = np.sqrt(spectrum / spectrum.sum() * (1 - MEAN)).astype(np.float32)
    image = random.standard_normal((count, 1, DIM - 1), dtype=np.float32) * np.sqrt(np.float32(BETWEEN_IMAGES))
    view = random.standard_normal((count, VIEWS, DIM - 1), dtype=np.float32) * np.sqrt(
        np.float32(1 - BETWEEN_IMAGES)
    )
    out = np.empty((count, VIEWS, DIM), dtype=np.float32)
    out[..., 0] = np.sqrt(MEAN)
    out[..., 1:] = (image + view) * spread
    return out / np.linalg.norm(out, axis=2, keepdims=True)


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Measure seconds, and the peak of memory that belongs to this process alone, in MB."""
    seen, stop = {"seconds": 0.0, "own_mb": 0.0}, threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            seen["own_mb"] = max(seen["own_mb"], int(lines["RssAnon"].split()[0]) / 1024)

    thread = threading.Thread(target=look)
    thread.start()
    began = time.monotonic()
    try:
        yield seen
    finally:
        seen["seconds"] = time.monotonic() - began
        stop.set()
        thread.join()


def generate(folder: Path) -> None:
    """Write the vectors, a piece at a time."""
    pieces = range(0, IMAGES, 1000)
    write_synced_parts(folder / "vectors", (vectors(min(1000, IMAGES - at), 1 + at).tobytes() for at in pieces))


def build(folder: Path, kind: str) -> dict[str, float]:
    """Build the index, calibrate, write the bank."""
    bank = np.memmap(folder / "vectors", dtype=np.float32, mode="r", shape=(IMAGES, VIEWS, DIM))
    held = vectors(HELD_OUT, 0)
    backbone = {
        "name": "synthetic",
        "dim": DIM,
        "weights_sha256": "0" * 64,
        "licence": "none",
        "training_data": "none",
    }
    facts = {
        "created_at": "2026-01-01T00:00:00+00:00", "backbone": backbone, "preprocessing": Preprocessing(),
        "views": DEFAULT_VIEWS, "k": 1, "calibration": "held-out", "false_positive_rate": 0.05, "population": {},
        "versions": {},
    }  # fmt: skip
    with watched() as seen:
        index = build_index(IndexOrder(kind), bank, held, 1, folder, 0)
        scores = score_against(bank, held, 1, index.searched)
        write_bank(
            folder / kind,
            vectors=index.file,
            head=Head(),
            calibration=Calibration.of(scores),
            images=[str(number) for number in range(IMAGES)],
            facts=facts,
        )
    found = index.file.facts
    more = {} if found is None else {"lists": found.lists, "probes": found.probes}
    return seen | more | {"recall": 1.0 if found is None else found.recall}


def answer(folder: Path, kind: str) -> dict[str, float]:
    """Load the bank and score images one at a time."""
    asked = vectors(ASKED, 10**9)
    with watched() as loading:
        bank = load_bank(folder / kind)
    times = []
    with watched() as answering:
        for image in asked:
            began = time.monotonic()
            distances, _ = knn.nearest(bank.index, image, 5)
            assert 0 < float(knn.geometric_mean(knn.kth_distance(distances, 1))) < 4
            times.append(time.monotonic() - began)
    return {
        "load": loading["seconds"], "own_mb": max(loading["own_mb"], answering["own_mb"]), "first": times[0],
        "median": float(np.median(times)), "slowest": max(times),
        "gb": (folder / kind / INDEX).stat().st_size / 1e9,
    }  # fmt: skip


def step(folder: Path, *arguments: str) -> dict[str, float]:
    """Run a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    values: dict[str, float] = json.loads(done.stdout or "{}")
    return values


def test_million(tmp_path: Path) -> None:
    """Print the table."""
    try:
        step(tmp_path, "generate")
        print(
            f"\n{IMAGES * VIEWS} vectors of {DIM}, {VIEWS} an image; recall of the nearest over {HELD_OUT * VIEWS}"
        )
        print(
            "| index | file | build | own memory | load | own memory | first image | median | slowest | recall |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for kind in KINDS:
            made, used = step(tmp_path, "build", kind), step(tmp_path, "answer", kind)
            name = (
                f"{kind}, {made['probes']} of {made['lists']} lists" if "probes" in made else f"{kind} (exact)"
            )
            cells = (
                f"{used['gb']:.2f} GB", f"{made['seconds']:.0f} s", f"{made['own_mb']:.0f} MB", f"{used['load']:.1f} s",
                f"{used['own_mb']:.0f} MB", *(f"{used[key] * 1000:.0f} ms" for key in ("first", "median", "slowest")),
                f"{made['recall']:.4f}",
            )  # fmt: skip
            print("| " + " | ".join((name, *cells)) + " |", flush=True)
            assert made["recall"] >= 0.99
            shutil.rmtree(tmp_path / kind)
    finally:
        shutil.rmtree(tmp_path)


if __name__ == "__main__":
    place, what, *which = sys.argv[1:]
    result = {"generate": generate, "build": build, "answer": answer}[what](Path(place), *which)
    sys.stdout.write(json.dumps(result or {}))
