"""200 studies on a worklist, two nodes, one killed: ``python -m tests.bench.bench_worklist [STUDIES]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.conftest import PostgresServer, cluster
from tests.live import build_bank
from tests.worklist_siege import work_off


def main(studies: int) -> None:
    """Work off a worklist and print what was seen."""
    with tempfile.TemporaryDirectory() as name, cluster() as own:
        folder, server = Path(name), PostgresServer(own.url)
        build_bank(folder / "banks", folder)
        url = server.borrow().render_as_string(hide_password=False)
        tally = work_off(folder, folder / "banks", url, studies, 1800)
        server._admin.dispose()
    once = ("SCHEDULED", "IN PROGRESS", "COMPLETED")
    print(f"{studies} steps, one node killed after {tally.completed_at_kill}, {tally.seconds:.0f} s")
    print(f"completed once: {tally.ways[once]}; other ways: {len(tally.ways) - 1}")
    print(f"reports: {tally.reports.total()} on {len(tally.reports)} studies; tasks: {dict(tally.tasks)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
