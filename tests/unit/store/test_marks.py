from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import NotFoundError
from dicom_node.store import marks
from dicom_node.store.marks import Marked
from tests.unit.store.conftest import T0, Take

LATER = T0 + timedelta(hours=1)


def test_the_latest_word_about_a_study_counts(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        for number in range(4):
            take(conn, f"1.2.{number}.1", study=f"1.2.{number}")
        marks.add(conn, "1.2.0", "normal", "ada", T0)
        marks.add(conn, "1.2.1", "normal", "ada", T0)
        marks.add(conn, "1.2.2", "abnormal", "ada", T0)
        marks.add(conn, "1.2.1", "abnormal", "bob", LATER)
        marks.add(conn, "1.2.2", "clear", "bob", LATER)
        marks.add(conn, "1.2.2", "normal", "bob", LATER)
    with reading(engine) as conn:
        assert marks.studies_marked(conn, "normal") == ("1.2.0", "1.2.2")
        assert marks.studies_marked(conn, "abnormal") == ("1.2.1",)


def test_a_mark_taken_back_leaves_the_study_unmarked_and_its_history_whole(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, study="1.2.3")
        marks.add(conn, "1.2.3", "normal", "ada", T0)
        marks.add(conn, "1.2.3", "clear", "bob", LATER)
    with reading(engine) as conn:
        assert marks.studies_marked(conn, "normal") == ()
        assert marks.history(conn, "1.2.3") == (
            Marked("1.2.3", "normal", "ada", T0),
            Marked("1.2.3", "clear", "bob", LATER),
        )


def test_a_study_that_was_never_received_cannot_be_marked(engine: Engine) -> None:
    with pytest.raises(NotFoundError, match=r"1\.2\.9 was ever received"), writing(engine) as conn:
        marks.add(conn, "1.2.9", "normal", "ada", T0)
    with reading(engine) as conn:
        assert conn.execute(select(schema.marks)).all() == []


def test_a_mark_and_its_event_are_written_together(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, study="1.2.3")
        marks.add(conn, "1.2.3", "normal", "a" * 80, T0)
    with reading(engine) as conn:
        told = conn.execute(select(schema.events).where(schema.events.c.kind == "study.marked")).one()
    assert told.study_instance_uid == "1.2.3"
    assert told.detail == {"mark": "normal", "by": "a" * 64}
