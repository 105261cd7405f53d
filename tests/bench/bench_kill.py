"""kill -9 until there were enough: every image that got Success is in the last report of its study exactly once.

``DICOM_NODE_KILLS`` says how many (default 200), ``DICOM_NODE_KILL_BANK=1`` that the nodes are started by `serve` and
score with a bank, instead of being forked with a scorer that waits. Each round kills three nodes side by side, 40 times
each, and lets them drain.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from tests.live import LiveNode, build_bank
from tests.siege import Tally, lay_siege

KILLS = int(os.environ.get("DICOM_NODE_KILLS", "200"))
WITH_BANK = os.environ.get("DICOM_NODE_KILL_BANK") == "1"
KILLS_A_ROUND, NODES = 40, 3


def test_kills(tmp_path: Path) -> None:
    """Print the sum after every round, so that a run that is ended early has told what it saw."""
    besiege = lay_siege
    if WITH_BANK:
        build_bank(tmp_path / "banks", tmp_path)
        besiege = partial(lay_siege, make=LiveNode, banks=tmp_path / "banks")
    seen, began, number = Tally(), time.monotonic(), count()
    with ThreadPoolExecutor(NODES) as pool:
        while seen.node_kills + seen.scorer_kills < KILLS:
            folders = [tmp_path / str(next(number)) for _ in range(NODES)]
            for folder in folders:
                folder.mkdir()
            seeds = [int(folder.name) for folder in folders]
            for tally in pool.map(besiege, folders, [KILLS_A_ROUND] * NODES, seeds):
                seen.add(tally)
            for folder in folders:
                shutil.rmtree(folder)
            print(f"{time.monotonic() - began:.0f} s, {(seeds[-1] + 1) // NODES} rounds: {seen}", flush=True)
