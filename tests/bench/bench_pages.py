"""How long a page takes: at the server, and until a browser shows it. 5 000 studies as rows, a header each; SQLite.

``make bench`` prints it. The browser's figure is the load event, thumbnails apart; "first" is the first look
of anybody at that page since the node began.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import httpx

from dicom_node.config import Db
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.store.files import FileStore
from tests import synthetic
from tests.desks import Desk
from tests.fakes import ManualClock
from tests.reading_room import browser, log_in, open_room

STUDIES, ROUNDS = 5_000, 15
PAGES = {
    "newest first": "/",
    "most unusual first": "/?order=unusual",
    "most urgent first": "/?order=urgent",
    "page 50": "/?offset=2450",
    "filtered": "/?verdict=above+threshold&delivery=failed",
    "study": f"/studies/{synthetic.study_uid(27)}",
    "banks": "/banks",
    "node": "/node",
}
TIMING = "const t = performance.getEntriesByType('navigation')[0]; return [t.domContentLoadedEventEnd, t.loadEventEnd]"


def test_pages(tmp_path: Path) -> None:
    """Print the milliseconds of each page, median and worst."""
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    upgrade(engine)
    files = FileStore(tmp_path / "store", 1000)
    synthetic.fill(engine, STUDIES, files=files)
    desk = Desk(engine, files, clock=ManualClock(synthetic.NOW)).desk
    desk.warm_up()  # as a node does when it begins
    print(
        f"\n{'page':20} {'browser':>8} {'first':>8} {'worst':>8} {'server':>8} {'worst':>8}  ms, {STUDIES} studies"
    )
    with open_room(desk) as address, browser() as page:
        log_in(page, address, "viewer")
        with httpx.Client(cookies={"dicom-node": "viewer"}) as asked:
            for name, path in PAGES.items():
                served, shown = [], []
                for _ in range(ROUNDS):
                    page.get(address + path)
                    shown.append(float(page.execute_script(TIMING)[1]))
                    began = time.perf_counter()
                    assert asked.get(address + path).status_code == 200
                    served.append((time.perf_counter() - began) * 1000)
                figures = (
                    statistics.median(shown), shown[0], max(shown[1:]), statistics.median(served), max(served),
                )  # fmt: skip
                print(f"{name:20}" + "".join(f" {value:8.0f}" for value in figures))
    engine.dispose()
