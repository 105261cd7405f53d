"""A worklist of scheduled procedures, kept by DCMTK's wlmscpfs, is followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from dicom_node import node
from dicom_node.config import Config, ModalityWorklist
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.scheduled import ScheduledProcedure
from dicom_node.domain.urgency import ROUTINE, STAT
from dicom_node.node import due
from dicom_node.pipeline.arriving import secret
from dicom_node.pipeline.due import follow
from dicom_node.store import expected
from tests.fakes import ManualClock
from tests.ris import Ris
from tests.ris import ris as running_ris


@pytest.fixture
def ris(tmp_path: Path) -> Iterator[Ris]:
    with running_ris(tmp_path / "worklists") as server:
        yield server


def test_what_a_ris_has_scheduled_is_due_and_then_arrived_withdrawn_or_missed(ris: Ris, tmp_path: Path) -> None:
    section = ModalityWorklist(
        name="ris", ae_title="RIS", host="127.0.0.1", port=ris.port, missed_after_hours=48
    )
    config = Config.model_validate(
        {
            "store": {"root": str(tmp_path / "store")},
            "db": {"url": f"sqlite:///{tmp_path}/node.db"},
            "modality_worklists": [section.model_dump()],
        }
    )
    ris.schedule("ONE", "1.2.3", priority="STAT")
    ris.schedule("TWO", "1.2.4", accession="A2")
    ris.schedule("CT", "1.2.5", modality="CT")
    with node.open_node(config) as opened:
        [_, (_, seconds, ask_once)] = due.duties(opened)  # the first forgets what is long past
        assert seconds == section.poll_seconds
        assert ask_once() == 2
        with writing(opened.engine) as conn:
            assert {row["study_instance_uid"] for row in expected.due(conn)} == {"1.2.3", "1.2.4"}
            assert expected.priority(conn, "1.2.3") == STAT
            assert expected.priority(conn, "1.2.4") == ROUTINE
            assert expected.procedure(conn, "1.2.3") == ("36643-5", "LN", "XR Chest 2 Views")
            kept = str(conn.execute(select(schema.expected)).all())
            assert not [word for word in ("SECRET", "Hidden", "A1", "A2") if word in kept]
            assert expected.arrived(conn, "1.2.3", (), node.now()) == 1
        ris.schedule("THREE", "1.2.6")
        ris.cancel("TWO")
        ask_once()
        with reading(opened.engine) as conn:
            assert [row["study_instance_uid"] for row in expected.due(conn)] == ["1.2.6"]

        later = node.now() + timedelta(hours=80)
        follow(opened.engine, section, due.asking(opened), secret(opened.engine), lambda: later)
        with reading(opened.engine) as conn:
            assert [(row["study_instance_uid"], row["state"]) for row in expected.due(conn)] == [
                ("1.2.6", "missed")
            ]

        ris.process.kill()
        ris.process.wait()
        with pytest.raises(DestinationAwayError, match="ris"):
            ask_once()


def test_a_missed_procedure_that_is_put_off_is_due_again(engine: Engine) -> None:
    section = ModalityWorklist(name="ris", ae_title="RIS", host="127.0.0.1", port=104, missed_after_hours=12)
    clock = ManualClock()
    listed = [ScheduledProcedure("1.2.3/R1/S1", "1.2.3", "", clock())]
    told: list[tuple[float, str]] = []
    for hours, put_off in ((0, 0), (13, 0), (1, 0), (1, 48), (47, 0), (15, 0)):
        clock.forward(3600 * hours)
        if put_off:
            listed[0] = replace(listed[0], due_at=clock() + timedelta(hours=put_off))
        follow(engine, section, lambda _section: listed, "key", clock)
        with reading(engine) as conn:
            (row,) = expected.due(conn)
            missed = conn.execute(select(func.count()).where(schema.events.c.kind == "study.missed"))
            told.append((missed.scalar_one(), row["state"]))
    assert told == [(0, "due"), (1, "missed"), (1, "missed"), (1, "due"), (1, "due"), (2, "missed")]
