"""What the rows of a study come to, state by state."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.pipeline import story
from dicom_node.report.profile import CLASSES, cut_uid
from dicom_node.store.overview import StudyDetail

REPORT = "2.25.1"


def held(item: dict[str, Any] | None, delivery: dict[str, Any] | None, **more: Any) -> StudyDetail:
    """Return a study with one report, and what is known of it at the destination "pacs"."""
    work = {
        "id": 7,
        "kind": "deliver",
        "revision": 1,
        "destination": "pacs",
        "bank": "",
        "attempts": 2,
        "reason": "why",
    }
    sent = {"sop_instance_uid": REPORT, "destination": "pacs", "sent_as": "", "sent_at": None, "confirmed": ""}
    rows: dict[str, Any] = {
        "revisions": ({"number": 1, "closed_at": None},),
        "instances": (),
        "work_items": () if item is None else (work | item,),
        "reports": (
            {
                "revision": 1,
                "sop_instance_uid": REPORT,
                "sop_class_uid": CLASSES[0],
                "verdict": "failed",
                "result": {},
            },
        ),
        "objects": (),
        "deliveries": () if delivery is None else (sent | delivery,),
        "commitments": (),
        "events": (),
    }
    return StudyDetail("1.2.3", **(rows | more))


@pytest.mark.parametrize(
    ("item", "delivery", "state"),
    [
        ({"state": "SCHEDULED"}, None, "waiting"),
        ({"state": "IN_PROGRESS"}, None, "waiting"),
        ({"state": "FAILED"}, None, "failed"),
        ({"state": "CANCELED"}, None, "canceled"),
        ({"state": "SCHEDULED"}, {}, "sent, waiting for confirmation"),
        ({"state": "COMPLETED"}, {}, "sent"),
        ({"state": "COMPLETED"}, {"confirmed": "committed"}, "committed"),
        ({"state": "COMPLETED"}, {"confirmed": "found"}, "found"),
        ({"state": "COMPLETED"}, {"confirmed": "unconfirmed"}, "sent, unconfirmed"),
        (None, {"confirmed": "found"}, "found"),
    ],
)
def test_the_state_of_a_report_at_a_destination(
    item: dict[str, Any] | None, delivery: dict[str, Any] | None, state: str
) -> None:
    (row,) = story.destinations(held(item, delivery))
    assert row["state"] == state
    assert row["reason"] == ("" if state in ("committed", "found", "sent") else "why")


def test_a_report_is_named_as_it_was_sent() -> None:
    (row,) = story.destinations(held(None, {"sent_as": CLASSES[3]}))
    assert (row["sent_as"], row["sop_instance_uid"]) == ("basic-text", cut_uid(REPORT, CLASSES[3]))
    (row,) = story.destinations(held(None, {}))
    assert (row["sent_as"], row["sop_instance_uid"]) == ("comprehensive-3d", REPORT)
    (row,) = story.destinations(held({"state": "SCHEDULED"}, None))
    assert (row["sent_as"], row["sop_instance_uid"]) == ("", REPORT)


def test_display_objects_are_counted_where_they_were_stored() -> None:
    beside = {"sop_instance_uid": "2.25.5", "report_sop_instance_uid": REPORT}
    found = held(None, {}, objects=(beside,))
    (row,) = story.destinations(found)
    assert row["objects"] == 0
    stored = {"sop_instance_uid": "2.25.5", "destination": "pacs"}
    (row,) = story.destinations(held(None, {}, objects=(beside,), deliveries=(*found.deliveries, stored)))
    assert row["objects"] == 1


def test_a_revision_without_a_report_names_the_bank_that_it_waits_for() -> None:
    work = {"kind": "analyse", "revision": 1, "bank": "other"}
    asked = {"kind": "revision.rerun", "detail": {"revision": 1}}
    (row,) = story.history(held(None, None, work_items=(work,), reports=(), events=(asked,)))
    assert (row["why"], row["bank"], row["verdict"], row["supersedes"]) == ("rerun", "other", None, [])
    (row,) = story.history(held(None, None, work_items=(work,), reports=()))
    assert row["why"] == "again"
