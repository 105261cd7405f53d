"""What the rows held of a study come to: its revisions and why each was made, and where its reports are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicom_node.config import REPORT_CLASSES
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.report import profile
from dicom_node.store.overview import Rows, StudyDetail

_CLASS_NAMES = {uid: name for name, uid in REPORT_CLASSES.items()}
_CONFIRMED = {
    "committed": "committed",
    "found": "found",
    "unconfirmed": "sent, unconfirmed",
}

SETTLED = ("committed", "found", "sent")


def history(held: StudyDetail) -> list[dict[str, Any]]:
    """Return one row a revision: why it was made, how many images it has, and how it was answered.

    `why` is "images" where some came for it, "rerun" where a person asked for it, else "again": a retry or a repair.
    `bank` is what made the report, by name, or the one that is asked for while there is none. `supersedes` are the
    revisions whose reports this one's names as its predecessors.
    """
    asked = {event["detail"].get("revision") for event in held.events if event["kind"] == "revision.rerun"}
    named = {item["revision"]: item["bank"] for item in held.work_items if item["kind"] == Kind.ANALYSE}
    rows = []
    for revision in held.revisions:
        number = revision["number"]
        images = [image for image in held.instances if image["revision"] <= number and not image["conflict"]]
        came = any(image["revision"] == number for image in held.instances)
        report = _report(held, number)
        rows.append(
            {
                "revision": number,
                "why": "images" if came else "rerun" if number in asked else "again",
                "closed_at": revision["closed_at"],
                "images": len(images),
                "bank": named.get(number, "") if report is None else _banks(report["result"]),
                "verdict": None if report is None else report["verdict"],
                "reason": "" if report is None else report["result"].get("reason", ""),
                "report": None if report is None else report["sop_instance_uid"],
                "supersedes": []
                if report is None
                else sorted({r["revision"] for r in held.reports if r["revision"] < number}),
            }
        )
    return rows


def destinations(held: StudyDetail) -> list[dict[str, Any]]:
    """Return one row a report and destination: as what it was sent there, and whether the destination has it.

    `state` is "committed" or "found" where the destination answers for it, "sent, unconfirmed" where it does not,
    "sent" where it was not asked, "sent, waiting for confirmation" meanwhile; before that "waiting", "failed" or
    "canceled". `objects` are the display objects beside the report that it stored.
    """
    items = {
        (item["revision"], item["destination"]): item
        for item in held.work_items
        if item["kind"] == Kind.DELIVER
    }
    rows = []
    for report in held.reports:
        sent = {
            delivery["destination"]: delivery
            for delivery in held.deliveries
            if delivery["sop_instance_uid"] == report["sop_instance_uid"]
        }
        asked = {name for revision, name in items if revision == report["revision"]}
        for name in sorted(asked | set(sent)):
            item = items.get((report["revision"], name))
            delivery = sent.get(name)
            state = delivery_state(item, delivery)
            sop_class = "" if delivery is None else delivery["sent_as"] or report["sop_class_uid"]
            rows.append(
                {
                    "revision": report["revision"],
                    "destination": name,
                    "state": state,
                    "sent_as": _CLASS_NAMES.get(sop_class, sop_class),
                    "sop_instance_uid": _sent_uid(report["sop_instance_uid"], sop_class),
                    "objects": _objects_sent(held, report["sop_instance_uid"], name),
                    "sent_at": None if delivery is None else delivery["sent_at"],
                    "item": None if item is None else item["id"],
                    "attempts": 0 if item is None else item["attempts"],
                    "reason": "" if item is None or state in SETTLED else item["reason"],
                }
            )
    return rows


def _report(held: StudyDetail, revision: int) -> Mapping[str, Any] | None:
    """Return the report to a revision, the newest where there are several."""
    found: Rows = tuple(report for report in held.reports if report["revision"] == revision)
    return found[-1] if found else None


def _banks(result: Mapping[str, Any]) -> str:
    """Return the names of the banks that scored the image which decides."""
    if result.get("decisive") is None:
        return ""
    image = result["images"][result["decisive"]]
    made_by = [image.get("provenance"), *(also.get("provenance") for also in image.get("also", ()))]
    return ", ".join(one["bank_name"] for one in made_by if one)


def _objects_sent(held: StudyDetail, report: str, destination: str) -> int:
    beside = {made["sop_instance_uid"] for made in held.objects if made["report_sop_instance_uid"] == report}
    return sum(
        sent["sop_instance_uid"] in beside for sent in held.deliveries if sent["destination"] == destination
    )


def delivery_state(item: Mapping[str, Any] | None, delivery: Mapping[str, Any] | None) -> str:
    """Return where a report is at one destination, by the work to bring it there and what became of that."""
    left = item is not None and item["state"] in (State.SCHEDULED, State.IN_PROGRESS)
    if delivery is not None:
        if delivery["confirmed"]:
            return _CONFIRMED.get(delivery["confirmed"], str(delivery["confirmed"]))
        return "sent, waiting for confirmation" if left else "sent"
    if item is None or left:
        return "waiting"
    return "done" if item["state"] == State.COMPLETED else str(item["state"]).lower()


def _sent_uid(sop_instance_uid: str, sop_class: str) -> str:
    known = not sop_class or sop_class in profile.CLASSES
    return profile.cut_uid(sop_instance_uid, sop_class) if sop_class and known else sop_instance_uid
