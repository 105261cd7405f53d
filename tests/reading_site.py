"""The reading worklist in a real browser, on a node with 5 000 studies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy import Engine

from dicom_node.config import Db
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.node.web import PICTURES
from dicom_node.pipeline.pictures import NodePictures
from dicom_node.score.picture_process import PictureProcess
from dicom_node.store.files import FileStore
from tests import synthetic
from tests.desks import Desk
from tests.fakes import ManualClock
from tests.phantoms import chest_dataset, part10
from tests.reading_room import DESK, browser, log_in, look, open_room

STUDIES = 5_000
HOSTILE = "<script>document.write(1)</script>"
UNUSUAL = 27
"""The most unusual of the first studies: percentile 99.9, answered."""


@dataclass
class Site:
    """The node, its address, and a browser."""

    address: str
    engine: Engine
    desk: Desk
    page: Chrome

    def go(self, path: str, role: str = "viewer") -> Chrome:
        self.page.delete_all_cookies()
        look(self.page, DESK, light=False)
        log_in(self.page, self.address, role)
        self.page.get(self.address + path)
        return self.page

    def until(self, what: str) -> None:
        """Wait until a script says yes."""
        WebDriverWait(self.page, 10, 0.05).until(lambda page: page.execute_script(f"return {what}"))


def _square(ds: FileDataset) -> Dataset:
    """Return a VOI LUT that shows the square of how far a value is from the smallest to the largest."""
    least, most = int(ds.pixel_array.min()), int(ds.pixel_array.max())
    table = Dataset()
    table.LUTDescriptor = [most - least + 1, least, 16]
    table.LUTData = np.rint(65535 * np.linspace(0, 1, most - least + 1) ** 2).astype(np.uint16).tobytes()
    return table


def _write(files: FileStore, number: int, name: str) -> None:
    ds = chest_dataset(
        seed=number,
        StudyInstanceUID=synthetic.study_uid(number),
        SeriesInstanceUID=f"2.25.6{number:06d}",
        SOPInstanceUID=synthetic.image_uid(number),
        SpecificCharacterSet="ISO_IR 192",
        PatientName=name,
        PatientID=f"P{number:05d}",
        WindowCenter=["2000", "800"],
        WindowWidth=["3000", "1500"],
        WindowCenterWidthExplanation=["WHOLE", "LUNG"],
    )
    if name == HOSTILE:
        ds.VOILUTSequence = [_square(ds)]
    path = files.instance_path(synthetic._digest(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(part10(ds))


@contextmanager
def reading_site(folder: Path, studies: int = STUDIES) -> Iterator[Site]:
    """Serve the reading worklist over so many studies inside the block; a few of them have an image."""
    engine = open_engine(Db(url=f"sqlite:///{folder / 'node.db'}"))
    upgrade(engine)
    files = FileStore(folder / "store", 1000)
    synthetic.fill(engine, studies)
    for number, name in ((0, "Adams^Mary"), (6, HOSTILE), (7, "Müller^Jürgen"), (UNUSUAL, "Yamada^Tarou")):
        _write(files, number, name)
    pictures = NodePictures(engine, folder / "pictures", PictureProcess(PICTURES), folder / "banks")
    desk = Desk(engine, files, clock=ManualClock(synthetic.NOW), pictures=pictures)
    try:
        with open_room(desk.desk) as address, browser() as page:
            yield Site(address, engine, desk, page)
    finally:
        pictures.close()
        engine.dispose()
