from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.config import Gather
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.types import Received
from dicom_node.pipeline.counting import Counting
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.store import expected, instances, studies
from tests.fakes import ManualClock

CONFIG = Gather(quiet_seconds=5.0, hold_seconds=60.0, count_seconds=10.0)


def came(engine: Engine, clock: ManualClock, study: str, image: str) -> None:
    at = clock()
    received = Received(
        Path("unused"),
        0,
        "1.2.840.10008.5.1.4.1.1.1.1",
        image,
        "1.2.840.10008.1.2.1",
        "CR1",
        "NODE",
        "",
        image,
        at,
    )
    digest = hashlib.sha256(image.encode()).hexdigest()
    with writing(engine) as conn:
        instances.add(
            conn, received, study_instance_uid=study, series_instance_uid="2.25.5", digest=digest, size=1, at=at
        )
        studies.association_ended(conn, image, "released", at)


class Archive:
    def __init__(self) -> None:
        self.images: dict[str, frozenset[str] | None] = {}
        self.asked: list[str] = []
        self.away = False

    def __call__(self, study_instance_uid: str) -> frozenset[str] | None:
        self.asked.append(study_instance_uid)
        if self.away:
            raise DestinationAwayError("the archive is away")
        return self.images.get(study_instance_uid)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def archive() -> Archive:
    return Archive()


def closed(engine: Engine, clock: ManualClock) -> int:
    return close_quiet_revisions(engine, CONFIG, clock)


def test_a_study_is_complete_as_soon_as_all_that_the_archive_has_is_here(
    engine: Engine, clock: ManualClock, archive: Archive
) -> None:
    count = Counting(engine, CONFIG, archive, clock)
    came(engine, clock, "2.25.1", "2.25.11")
    archive.images["2.25.1"] = frozenset({"2.25.11", "2.25.12"})
    assert count() == 1
    clock.forward(20)
    assert closed(engine, clock) == 0  # quiet for long, and the archive has one more
    came(engine, clock, "2.25.1", "2.25.12")
    assert closed(engine, clock) == 1  # not quiet, and everything is here
    with reading(engine) as conn:
        assert expected.verdict(conn, "2.25.1", clock()) == "wait"


def test_an_archive_that_names_images_which_never_come_costs_its_time_and_no_more(
    engine: Engine, clock: ManualClock, archive: Archive
) -> None:
    count = Counting(engine, CONFIG, archive, clock)
    came(engine, clock, "2.25.1", "2.25.11")
    archive.images["2.25.1"] = frozenset({"2.25.99"})
    for _ in range(6):
        count()
        assert closed(engine, clock) == 0
        clock.forward(10.5)
    assert closed(engine, clock) == 1


def test_an_archive_that_is_away_or_has_nothing_leaves_it_to_the_quiet_time(
    engine: Engine, clock: ManualClock, archive: Archive
) -> None:
    count = Counting(engine, CONFIG, archive, clock)
    came(engine, clock, "2.25.1", "2.25.11")
    came(engine, clock, "2.25.2", "2.25.21")
    archive.away = True
    assert count() == 0
    assert len(archive.asked) == 1  # not once for each study
    archive.away = False
    clock.forward(6)
    assert count() == 0
    assert closed(engine, clock) == 2


def test_a_study_is_asked_for_every_few_seconds_and_not_when_it_is_closed(
    engine: Engine, clock: ManualClock, archive: Archive
) -> None:
    count = Counting(engine, CONFIG, archive, clock)
    came(engine, clock, "2.25.1", "2.25.11")
    for _ in range(5):
        count()
        clock.forward(2)
    assert archive.asked == ["2.25.1"]
    count()
    assert archive.asked == ["2.25.1"] * 2
    with writing(engine) as conn:
        at: datetime = clock()
        assert studies.close_revision(conn, "2.25.1", 1, at)
    clock.forward(60)
    count()
    assert len(archive.asked) == 2
