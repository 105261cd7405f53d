"""A node is killed (SIGKILL) in the middle of a study that it fetches; the backfill goes on, and no image is twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import load
from dicom_node.db.engine import reading
from dicom_node.node import Node, archives_of, fetcher, now, open_node
from dicom_node.pipeline import fetching
from dicom_node.pipeline.backfill import LEASE_SECONDS, Backfill
from dicom_node.store import holdings, retrievals
from tests.peers import free_port
from tests.scripted_archive import Script, image, running

pytestmark = pytest.mark.slow

STUDIES = ("1.2.826.0.1.11", "1.2.826.0.1.12", "1.2.826.0.1.13")
DEADLINE = 30.0


class Holding(Script):
    """Sends the studies that are asked for; waits in the middle of one until it is told to go on."""

    def __init__(self) -> None:
        super().__init__([image(number, study=study) for study in STUDIES for number in (1, 2)])
        self.in_the_middle, self.go_on = threading.Event(), threading.Event()

    def send(self, event: Any) -> Any:
        wanted = [ds for ds in self.sends if ds.StudyInstanceUID == event.identifier.StudyInstanceUID]
        named = event.identifier.get("SOPInstanceUID") or []
        named = [named] if isinstance(named, str) else list(named)
        wanted = [ds for ds in wanted if not named or ds.SOPInstanceUID in named]
        yield len(wanted)
        for number, ds in enumerate(wanted):
            if number == 1 and ds.StudyInstanceUID == STUDIES[1] and not self.go_on.is_set():
                self.in_the_middle.set()
                self.go_on.wait(DEADLINE)
            yield 0xFF00, ds


def _states(node: Node) -> dict[str, int]:
    (row,) = fetching.progress(node.engine)["archives"]
    return {state: row[state] for state in retrievals.STATES if row[state]}


def test_killed_in_the_middle_of_a_study_the_backfill_goes_on(tmp_path: Path) -> None:
    script = Holding()
    with running(script) as archive:
        path = tmp_path / "config.toml"
        path.write_text(
            f"""
[receive]
host = "127.0.0.1"
port = {free_port()}
[store]
root = "{tmp_path / "store"}"
reserve_megabytes = 1
[db]
url = "sqlite:///{tmp_path / "node.db"}"
[[archives]]
name = "pacs"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive.port}
timeout = 10
""",
            encoding="utf-8",
        )
        with open_node(load(path)) as node:
            assert fetching.ask_for(node.engine, "pacs", STUDIES, 9, now()) == 3
        command = [sys.executable, "-m", "dicom_node", "receive", "--config", str(path)]
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
        try:
            assert script.in_the_middle.wait(DEADLINE)
            until = time.monotonic() + DEADLINE
            with open_node(load(path)) as node:
                while not _held(node, STUDIES[1]) and time.monotonic() < until:
                    script.go_on.wait(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        script.go_on.set()
        with open_node(load(path)) as node:
            assert _states(node) == {"due": 1, "fetching": 1, "fetched": 1}
            assert len(_held(node, STUDIES[1])) == 1
            later = timedelta(seconds=LEASE_SECONDS)
            Backfill(node.engine, archives_of(node.config), fetcher(node), lambda: now() + later)()
            assert _states(node) == {"fetched": 3}
            assert [len(_held(node, study)) for study in STUDIES] == [2, 2, 2]


def _held(node: Node, study: str) -> frozenset[str]:
    with reading(node.engine) as conn:
        return holdings.held(conn, study)
