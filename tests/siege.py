"""A node that is killed again and again while images come in; afterwards every image must have its report."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.errors import NodeError
from tests.archive import Archive
from tests.live import LiveNode, until
from tests.phantoms import chest_dataset, part10
from tests.siege_node import ForkedNode

_TABLES = "SELECT count(*) FROM sqlite_master WHERE name = 'work_items'"
_PENDING = "SELECT count(*) FROM work_items WHERE state IN ('SCHEDULED', 'IN_PROGRESS')"
_OPEN = "SELECT count(*) FROM revisions WHERE closed_at IS NULL"
_AT_WORK = """
    SELECT CASE WHEN kind = 'analyse' THEN 'analysing' WHEN EXISTS (
        SELECT 1 FROM reports JOIN deliveries USING (sop_instance_uid) WHERE reports.revision = work_items.revision
        AND reports.study_instance_uid = work_items.study_instance_uid AND deliveries.confirmed = ''
    ) THEN 'confirming' ELSE 'delivering' END FROM work_items WHERE state = 'IN_PROGRESS'
"""


@dataclass
class Tally:
    """What a siege saw. `moments` counts the kills by what was going on; one kill may count for several."""

    node_kills: int = 0
    scorer_kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    images: int = 0
    reports: int = 0
    sendings: int = 0
    questions: int = 0
    given_up: int = 0
    drain_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Add what another siege saw; of the times to drain, keep the longer."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "drain_seconds" else mine + value)


def lay_siege(
    folder: Path, kills: int, seed: int, make: Callable[..., LiveNode] = ForkedNode, banks: Path | None = None
) -> Tally:
    """Kill one node, or a scoring process of it, `kills` times while studies come in; then let it drain and judge.

    Parameters
    ----------
    make
        A LiveNode, which also needs `banks`, scores in earnest and takes seconds to start.

    Raises
    ------
    AssertionError
        If an image that got Success is not in the last report of its study exactly once, or anything came twice.
    """
    rng = random.Random(seed)
    tally = Tally()
    with Archive(random.Random(seed)) as pacs:
        node = make(
            folder,
            banks or folder / "banks",
            pacs.destination,
            queue={"backoff_cap_seconds": 2.0},
            deliver={"confirm_seconds": 5.0},
            work={"workers": 1},
        )
        if banks is not None:
            assert node.command("bank", "activate", "test").returncode == 0
        node.start()
        over, accepted = threading.Event(), defaultdict[str, list[str]](list)
        sender = threading.Thread(target=_send, args=(node, random.Random(seed + 1), over, accepted))
        sender.start()
        try:
            while tally.node_kills + tally.scorer_kills < kills:
                _kill(node, rng, tally)
            over.set()
            if node.process is None or node.process.poll() is not None:
                node.start()
            sender.join(120)
            assert not sender.is_alive(), "the node takes nothing any more"
            began = time.monotonic()
            until(lambda: _rows(node, _PENDING, _OPEN) == [0, 0], "every study is answered and delivered", 300)
            tally.drain_seconds = time.monotonic() - began
            assert node.stop() == 0
            tally.given_up = _rows(node, "SELECT count(*) FROM work_items WHERE state = 'FAILED'")[0]
        finally:
            over.set()
            if node.process is not None and node.process.poll() is None:
                node.kill()
            sender.join(10)
            if isinstance(node, ForkedNode):
                node.close()
    _judge(pacs, accepted, tally)
    return tally


def _kill(node: LiveNode, rng: random.Random, tally: Tally) -> None:
    """Wait for a random while and kill: two in five times a scoring process alone, one in five a node that starts."""
    assert node.process is not None
    choice = rng.random()
    time.sleep(rng.choice([rng.uniform(0.0, 0.6), rng.uniform(0.0, 2.5)]))
    children = _children(node.process.pid)
    if choice < 0.4 and children:
        tally.moments.update(f"scorer, {what}" for what in _going_on(node))
        with suppress(ProcessLookupError):
            os.kill(rng.choice(children), signal.SIGKILL)
            tally.scorer_kills += 1
        return
    node.kill()
    tally.node_kills += 1
    tally.moments.update(f"node, {what}" for what in _going_on(node))
    if choice > 0.8 and tally.node_kills > 1:
        node.start(wait=False)
        time.sleep(rng.uniform(0.0, 2.0))
        node.kill()
        tally.node_kills += 1
        tally.moments["node, starting"] += 1
    node.start()


def _children(process_id: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{process_id}/task").glob("*/children")
        return sorted(int(child) for task in tasks for child in task.read_text().split())
    except OSError:  # a thread that ended just now
        return []


def _rows(node: LiveNode, *statements: str) -> list[Any]:
    """Return the first column of the rows of each, from the node's database, without changing it."""
    with closing(sqlite3.connect(f"file:{node.folder / 'node.db'}?mode=ro", uri=True, timeout=30)) as conn:
        return [row[0] for statement in statements for row in conn.execute(statement)]


def _going_on(node: LiveNode) -> set[str]:
    found = set(_rows(node, _AT_WORK)) if _rows(node, _TABLES) == [1] else set()
    staged = [path.name for path in (node.folder / "store" / "incoming").iterdir()]
    return found | {"receiving" for name in staged if not name.startswith("report-")} or {"idle"}


def _send(node: LiveNode, rng: random.Random, over: threading.Event, accepted: dict[str, list[str]]) -> None:
    """Send studies of one or two images, each image until it gets Success, as a modality with a queue does."""
    number = 0
    while not over.is_set():
        study = f"2.25.{uuid.UUID(int=rng.getrandbits(128)).int}"
        for _ in range(rng.choice([1, 1, 2])):
            uid = f"2.25.{rng.getrandbits(120)}"
            path = node.folder / f"{uid}.dcm"
            path.write_bytes(
                part10(
                    chest_dataset(
                        seed=number % 10, StudyInstanceUID=study, SeriesInstanceUID=study, SOPInstanceUID=uid
                    )
                )
            )
            while not _sent(node, path):
                time.sleep(0.05)
            path.unlink()
            accepted[study].append(uid)
            number += 1
        time.sleep(rng.uniform(0.0, 0.3))


def _sent(node: LiveNode, path: Path) -> bool:
    try:
        return node.send(path) == [0]
    except NodeError:
        return False


def _judge(pacs: Archive, accepted: dict[str, list[str]], tally: Tally) -> None:
    superseded = {uid for report in pacs.kept.values() for uid in _predecessors(report)}
    last = {str(r.StudyInstanceUID): r for uid, r in pacs.kept.items() if uid not in superseded}
    assert len(last) == len(pacs.kept) - len(superseded), "a study has two last reports"
    assert {study: sorted(_images(report)) for study, report in last.items()} == {
        study: sorted(uids) for study, uids in accepted.items()
    }
    assert {len(digests) for digests in pacs.digests.values()} <= {1}, "other bytes came under the same UID"
    tally.studies, tally.images = len(accepted), sum(map(len, accepted.values()))
    tally.reports, tally.sendings, tally.questions = len(pacs.kept), pacs.sendings, pacs.asked


def _images(report: Dataset) -> list[str]:
    return [
        str(image.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]


def _predecessors(report: Dataset) -> list[str]:
    return [
        str(document.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    ]
