"""How long the desk takes with many studies: `python -m tests.bench.bench_desk [STUDIES]`. Prints milliseconds."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dicom_node.config import Db
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.domain.reading import Filters, Order, Progress
from dicom_node.store.files import FileStore
from tests import synthetic
from tests.desks import Desk

RUNS = 15


def main(studies: int) -> None:
    """Fill a database, ask, and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        engine = open_engine(Db(url=f"sqlite:///{root}/node.db"))
        upgrade(engine)
        files = FileStore(root / "store", 0)
        synthetic.fill(engine, studies, files=files)
        made = Desk(engine, files, lambda: synthetic.NOW)
        desk = made.desk
        began = time.perf_counter()
        made.patients.catch_up()
        made.patients.filled(600)
        print(f"{studies} studies; reading all headers for the search: {time.perf_counter() - began:.1f} s")
        asked = {
            "newest": Filters(),
            "most unusual": Filters(order=Order.UNUSUAL),
            "most urgent": Filters(order=Order.URGENT),
            "failed": Filters(progress=frozenset([Progress.FAILED])),
            "failed at vna": Filters(destination="vna", delivery="failed"),
            "search": Filters(search="muller"),
        }
        for name, filters in asked.items():
            _print(f"list, {name}", lambda filters=filters: desk.studies(filters, 0, 50))
        _print("list, newest, page 50", lambda: desk.studies(Filters(), 49 * 50, 50))
        _print("study", lambda: desk.study(synthetic.study_uid(0)))
        _print("node", desk.health)
        _print("changes", lambda: desk.changes(studies - 10))
        desk.close()
        engine.dispose()


def _print(name: str, ask: Callable[[], object]) -> None:
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        ask()
        times.append(1000 * (time.perf_counter() - began))
    print(
        f"{name:24}  first {times[0]:6.1f}   median {statistics.median(times):6.1f}   worst {max(times):6.1f} ms"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
