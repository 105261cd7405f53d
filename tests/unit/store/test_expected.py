from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.urgency import HIGH, LOW, ROUTINE, STAT
from dicom_node.store import expected

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "2.25.1"


def test_the_most_urgent_of_what_is_known_counts(engine: Engine) -> None:
    with writing(engine) as conn:
        assert expected.priority(conn, STUDY) == ROUTINE
        expected.put(conn, source="fetch", key="a", study_instance_uid=STUDY, at=AT, priority=LOW)
        assert expected.priority(conn, STUDY) == LOW
        expected.put(conn, source="mwl", key="ris:1", study_instance_uid=STUDY, at=AT, priority=HIGH)
        assert expected.priority(conn, STUDY) == HIGH
        expected.put(conn, source="ups", key="2.25.9", study_instance_uid=STUDY, at=AT, priority=STAT)
        assert expected.priority(conn, STUDY) == STAT
        expected.settle(conn, "ups", "2.25.9", "withdrawn", AT)
        assert expected.priority(conn, STUDY) == HIGH


def test_what_a_source_says_again_takes_the_place_of_what_it_said(engine: Engine) -> None:
    with writing(engine) as conn:
        expected.put(conn, source="mpps", key="2.25.5", study_instance_uid=STUDY, at=AT, refs=["2.25.7"])
        expected.put(
            conn,
            source="mpps",
            key="2.25.5",
            study_instance_uid=STUDY,
            at=AT,
            refs=["2.25.8"],
            state="complete",
        )
        [notice] = expected.notices(conn, STUDY)
    assert (notice.state, notice.refs) == ("complete", {"2.25.8"})


def test_a_notice_that_names_more_images_than_may_be_says_nothing_of_completeness(engine: Engine) -> None:
    refs = [f"2.25.{number}" for number in range(3000)]
    with writing(engine) as conn:
        expected.put(conn, source="ian", key="x", study_instance_uid=STUDY, at=AT, refs=refs, state="complete")
        [notice] = expected.notices(conn, STUDY)
        assert notice.state == "open"
        assert expected.verdict(conn, STUDY, AT) == "wait"


def test_an_entry_is_matched_by_the_studys_uid_and_only_else_by_its_accession_number(engine: Engine) -> None:
    with writing(engine) as conn:
        for key, study, accession in (("ris:1", STUDY, "aa"), ("ris:2", "", "bb"), ("ris:3", "2.25.3", "cc")):
            expected.put(
                conn,
                source="mwl",
                key=key,
                study_instance_uid=study,
                at=AT,
                due_at=AT,
                accession_hash=accession,
            )
        assert expected.arrived(conn, STUDY, {"bb"}, AT) == 1
        assert expected.arrived(conn, "2.25.2", {"bb"}, AT) == 1
        assert expected.arrived(conn, "2.25.2", {"bb"}, AT) == 0
        assert [row["study_instance_uid"] for row in expected.due(conn)] == ["2.25.3"]
        assert [one.state for one in expected.notices(conn, "2.25.2")] == ["arrived"]


def test_what_is_not_on_the_worklist_any_more_is_withdrawn_and_what_never_came_is_missed(
    engine: Engine,
) -> None:
    with writing(engine) as conn:
        for number, due in ((1, AT - timedelta(hours=20)), (2, AT), (3, AT)):
            expected.put(
                conn, source="mwl", key=f"ris:{number}", study_instance_uid=f"2.25.{number}", at=AT, due_at=due
            )
        expected.put(conn, source="mwl", key="ris2:9", study_instance_uid="2.25.9", at=AT, due_at=AT)
        assert expected.withdraw_others(conn, "ris:", {"ris:2"}, AT - timedelta(hours=1), AT) == 1
        assert expected.miss(conn, "ris:", AT - timedelta(hours=12), AT) == ["2.25.1"]
        assert expected.miss(conn, "ris:", AT - timedelta(hours=12), AT) == []
    with reading(engine) as conn:
        assert expected.states(conn, "ris:") == {"ris:1": "missed", "ris:2": "open", "ris:3": "withdrawn"}
        assert {row["state"] for row in expected.due(conn)} == {"due", "missed"}


def test_the_procedure_is_that_of_the_entry_and_of_none_that_was_withdrawn(engine: Engine) -> None:
    code = ("36643-5", "LN", "XR Chest 2 Views")
    with writing(engine) as conn:
        assert expected.procedure(conn, STUDY) is None
        expected.put(conn, source="mwl", key="ris:1", study_instance_uid=STUDY, at=AT, procedure=code)
        assert expected.procedure(conn, STUDY) == code
        expected.settle(conn, "mwl", "ris:1", "withdrawn", AT)
        assert expected.procedure(conn, STUDY) is None


def test_an_entry_whose_study_arrived_stays_so_whatever_a_worklist_says_that_was_asked_before(
    engine: Engine,
) -> None:
    entry = {"source": "mwl", "key": "ris:1", "study_instance_uid": "", "accession_hash": "aa", "due_at": AT}
    with writing(engine) as conn:
        expected.put(conn, at=AT, **entry)  # type: ignore[arg-type]
        assert expected.arrived(conn, STUDY, ["aa"], AT) == 1
        expected.put(conn, at=AT, **entry)  # type: ignore[arg-type]
        assert expected.states(conn, "ris:") == {"ris:1": "arrived"}
        assert expected.due(conn) == ()


def test_what_is_due_now_is_listed_however_much_was_missed(engine: Engine) -> None:
    with writing(engine) as conn:
        for number in range(5):
            expected.put(
                conn,
                source="mwl",
                key=f"ris:{number}",
                study_instance_uid=f"2.25.{number}",
                at=AT,
                state="open" if number == 4 else "missed",
                due_at=AT + timedelta(days=number),
            )
        assert [row["study_instance_uid"] for row in expected.due(conn, 2)] == ["2.25.3", "2.25.4"]
        assert len(expected.due(conn, None)) == 5
