"""Reads the audit trail back for people: which messages, and each in one line. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from dicom_node.observe.audit_file import AuditFile

_OUTCOMES = {"0": "ok", "4": "minor failure", "8": "FAILED", "12": "MAJOR FAILURE"}


def selected(
    file: AuditFile, since: datetime | None = None, study_instance_uid: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the trail's messages, oldest first; a damaged line is left out.

    Parameters
    ----------
    since
        Only what happened at this moment or later.
    study_instance_uid
        Only what concerns this study.
    """
    for line, _ in file.lines():
        try:
            told = json.loads(line)
            one_line(told)
            at = datetime.fromisoformat(told["EventIdentification"]["EventDateTime"])
            wanted = (since is None or at >= since) and (
                not study_instance_uid or study_instance_uid in _ids(told)
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if wanted:
            yield told


def one_line(told: Mapping[str, Any]) -> str:
    """Return a message for people: when, what, how it came out, who, and on what."""
    event = told["EventIdentification"]
    kinds = [event["EventID"], *event.get("EventTypeCode", ())]
    what = ", ".join(kind["originalText"] for kind in kinds)
    outcome = _OUTCOMES.get(event["EventOutcomeIndicator"], event["EventOutcomeIndicator"])
    who = " and ".join(_who(one) for one in told["ActiveParticipant"])
    on_what = [_what(one) for one in told.get("ParticipantObjectIdentification", ())]
    why = event.get("EventOutcomeDescription", "")
    return "  ".join([event["EventDateTime"], what, outcome, who, *on_what, *([why] if why else [])])


def _ids(told: Mapping[str, Any]) -> set[str]:
    return {one["ParticipantObjectID"] for one in told.get("ParticipantObjectIdentification", ())}


def _who(participant: Mapping[str, Any]) -> str:
    title = participant.get("AlternativeUserID", "").removeprefix("AETITLES=")
    return f"{participant['UserID']} ({title})" if title else str(participant["UserID"])


def _what(one: Mapping[str, Any]) -> str:
    kind = one["ParticipantObjectIDTypeCode"]["originalText"]
    details = [detail["value"] for detail in one.get("ParticipantObjectDetail", ())]
    return f"{kind} {one['ParticipantObjectID']}" + (f": {'; '.join(details)}" if details else "")
