"""Events of the audit trail as DICOM audit messages (PS3.15 A.5): values for JSON, and XML by the schema of A.5.1.

Pure. A message is a dict with the schema's own names, in the schema's order, so that the XML follows from it without
further knowledge. Text from outside is made legal XML 1.0 on the way in.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from dicom_node.domain.audit import (
    Administered,
    ApplicationActivity,
    AssociationOpened,
    AssociationRejected,
    AuditEvent,
    AuditLogUsed,
    AuditOutcome,
    Party,
    Setting,
    StepAction,
    StepRequested,
    StudiesListed,
    StudyAccessed,
    StudyDeleted,
    TransferBegun,
    Transferred,
    UserAuthenticated,
)

Message = dict[str, Any]

LONGEST_TEXT = 1024
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_ELEMENTS = {"EventOutcomeDescription", "ParticipantObjectName", "ParticipantObjectQuery"}
_BASE64 = {("ParticipantObjectDetail", "value"), ("ParticipantObjectIdentification", "ParticipantObjectQuery")}


@dataclass(frozen=True, slots=True)
class AuditSource:
    """Who reports: this node.

    Attributes
    ----------
    source_id, site_id
        AuditSourceID and AuditEnterpriseSiteID; the latter may be empty.
    ae_title
        This node's AE title.
    process
        As the log names it: host name and process id.
    host
        Host name.
    """

    source_id: str
    site_id: str
    ae_title: str
    process: str
    host: str


def clean(text: str) -> str:
    """Return `text` as a token of legal XML: one line, no control characters, at most 1024 characters."""
    return " ".join(_ILLEGAL.sub("\ufffd", text).split())[:LONGEST_TEXT]


def _code(value: str, meaning: str, system: str = "DCM") -> Message:
    return {"csd-code": value, "codeSystemName": system, "originalText": meaning}


_SOURCE = _code("110153", "Source Role ID")
_DESTINATION = _code("110152", "Destination Role ID")
_APPLICATION = _code("110150", "Application")
_STUDY = _code("110180", "Study Instance UID")
_NODE = _code("110182", "Node ID")
_PATIENT = _code("2", "Patient Number", "RFC-3881")
_SEARCH = _code("10", "Search Criteria", "RFC-3881")
_URI = _code("12", "URI", "RFC-3881")
_NODE_AUTHENTICATION = _code("110126", "Node Authentication")
_SETTINGS = {
    Setting.NETWORK: _code("110128", "Network Configuration"),
    Setting.SECURITY: _code("110129", "Security Configuration"),
    Setting.SOFTWARE: _code("110131", "Software Configuration"),
    Setting.RESTRICTED: _code("110132", "Use of Restricted Function"),
    Setting.USERS: _code("110137", "User security Attributes Changed"),
}


def message(event: AuditEvent, source: AuditSource, patient_id: str = "") -> Message:
    """Return the audit message of an event (PS3.15 A.5.3).

    Parameters
    ----------
    patient_id
        Of the study that the event concerns; empty leaves the patient out.
    """
    code, action, participants, objects = _parts(event, source)
    if patient_id and getattr(event, "study_instance_uid", ""):
        objects.append(_object("1", "1", _PATIENT, patient_id, "patient"))
    outcome = getattr(event, "outcome", AuditOutcome.SUCCESS)
    if isinstance(event, AssociationRejected):
        outcome = AuditOutcome.SERIOUS_FAILURE
    identification: Message = {"EventID": code}
    if (kind := _type(event)) is not None:
        identification["EventTypeCode"] = [kind]
    if described := clean(str(getattr(event, "description", "") or getattr(event, "why", ""))):
        identification["EventOutcomeDescription"] = described
    identification |= {
        "EventActionCode": action,
        "EventDateTime": event.at.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": outcome.value,
    }
    site = {"AuditEnterpriseSiteID": clean(source.site_id)} if source.site_id else {}
    told: Message = {
        "EventIdentification": identification,
        "ActiveParticipant": participants,
        "AuditSourceIdentification": {
            **site,
            "AuditSourceID": clean(source.source_id),
            "AuditSourceTypeCode": [{"csd-code": "4"}],
        },
    }
    return told | ({"ParticipantObjectIdentification": objects} if objects else {})


def _type(event: AuditEvent) -> Message | None:
    match event:
        case ApplicationActivity(started=started):
            return _code("110120", "Application Start") if started else _code("110121", "Application Stop")
        case UserAuthenticated(login=login):
            return _code("110122", "Login") if login else _code("110123", "Logout")
        case AssociationOpened() | AssociationRejected():
            return _NODE_AUTHENTICATION
        case Administered(setting=setting):
            return _SETTINGS[setting]
        case _:
            return None


def _parts(event: AuditEvent, source: AuditSource) -> tuple[Message, str, list[Message], list[Message]]:
    """Return EventID, EventActionCode, the participants and the objects."""
    match event:
        case ApplicationActivity():
            return _code("110100", "Application Activity"), "E", [_self(source, role=_APPLICATION)], []
        case AssociationOpened(peer=peer) | AssociationRejected(peer=peer):
            told = "association accepted" if isinstance(event, AssociationOpened) else event.why
            told = f"called AE title {event.called_ae_title!r}: {told}"
            alert = _object("2", "13", _NODE, peer.address or "unknown", "peer", alert=told)
            return _code("110113", "Security Alert"), "E", [_self(source, requestor=True), _peer(peer)], [alert]
        case TransferBegun(peer=peer):
            participants = [_self(source, role=_SOURCE, requestor=True), _peer(peer, role=_DESTINATION)]
            return _code("110102", "Begin Transferring DICOM Instances"), "E", participants, [_study(event)]
        case Transferred(peer=peer, sent=sent, already_held=held):
            participants = [
                _self(source, role=_SOURCE if sent else _DESTINATION, requestor=sent),
                _peer(peer, role=_DESTINATION if sent else _SOURCE, requestor=not sent),
            ]
            # As A.5.3.7 says: a sender cannot know what the receiver held, and says "read".
            action = "R" if sent or held else "C"
            return _code("110104", "DICOM Instances Transferred"), action, participants, [_study(event)]
        case StudyAccessed(by=by, address=address):
            participants = [_person(by, address), _self(source)]
            return _code("110103", "DICOM Instances Accessed"), "R", participants, [_study(event)]
        case StudyDeleted(by=by):
            participants = [_person(by), _self(source)] if by else [_self(source, requestor=True)]
            return _code("110105", "DICOM Study Deleted"), "D", participants, [_study(event, "15")]
        case StudiesListed(by=by, query=query, address=address):
            participants = [_person(by, address) | {"RoleIDCode": [_SOURCE]}, _self(source, role=_DESTINATION)]
            asked = _object("2", "24", _SEARCH, "worklist", query=query)
            return _code("110112", "Query"), "E", [_ordered(p) for p in participants], [asked]
        case AuditLogUsed(by=by):
            log = _object("2", "13", _URI, "dicom-node:audit", "Security Audit Log")
            return _code("110101", "Audit Log Used"), "R", [_person(by), _self(source)], [log]
        case Administered(by=by, action=done, subject=subject, address=address):
            changed = _object("2", "5", _URI, f"dicom-node:{subject}", subject, alert=f"{done} {subject}")
            objects = [changed, *([_study(event)] if event.study_instance_uid else [])]
            return _code("110113", "Security Alert"), "E", [_person(by, address), _self(source)], objects
        case StepRequested(peer=peer, action=asked, what=what, sop_instance_uid=uid):
            participants = [_peer(peer, role=_SOURCE, requestor=True), _self(source, role=_DESTINATION)]
            if asked is StepAction.QUERY:
                steps = _object("2", "24", _SEARCH, "procedure steps", query=what)
                return _code("110112", "Query"), "E", participants, [steps]
            step = _object("2", "20", _URI, f"urn:oid:{uid}" if uid else "", what)
            return _code("110111", "Procedure Record"), asked.value, participants, [step]
        case UserAuthenticated(by=by, address=address):
            return _code("110114", "User Authentication"), "E", [_person(by, address), _self(source)], []


def _ordered(participant: Message) -> Message:
    """Return a participant with its role first, where the schema has it."""
    return {key: participant[key] for key in sorted(participant, key=lambda k: k != "RoleIDCode")}


def _participant(
    user: str, *, requestor: bool, role: Message | None, address: str = "", **more: str
) -> Message:
    told: Message = {} if role is None else {"RoleIDCode": [role]}
    told["UserID"] = clean(user) or "unknown"
    told |= {key: clean(text) for key, text in more.items() if text}
    told["UserIsRequestor"] = "true" if requestor else "false"
    if address:
        numeric = re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", address) is not None
        told |= {"NetworkAccessPointID": clean(address), "NetworkAccessPointTypeCode": "2" if numeric else "1"}
    return told


def _self(source: AuditSource, *, role: Message | None = None, requestor: bool = False) -> Message:
    return _participant(
        source.process,
        requestor=requestor,
        role=role,
        address=source.host,
        AlternativeUserID=f"AETITLES={source.ae_title}",
        UserName="dicom-node",
    )


def _peer(peer: Party, *, role: Message | None = None, requestor: bool = False) -> Message:
    titles = f"AETITLES={peer.ae_title}" if peer.ae_title else ""
    user = peer.address or peer.ae_title
    return _participant(user, requestor=requestor, role=role, address=peer.address, AlternativeUserID=titles)


def _person(name: str, address: str = "") -> Message:
    return _participant(name, requestor=True, role=None, address=address)


def _object(
    kind: str, role: str, id_type: Message, identifier: str, name: str = "", *, query: str = "", alert: str = ""
) -> Message:
    told: Message = {"ParticipantObjectIDTypeCode": id_type}
    told |= {"ParticipantObjectQuery": clean(query)} if query else {"ParticipantObjectName": clean(name)}
    if alert:
        told["ParticipantObjectDetail"] = [{"type": "Alert Description", "value": clean(alert)}]
    return told | {
        "ParticipantObjectID": clean(identifier) or "unknown",
        "ParticipantObjectTypeCode": kind,
        "ParticipantObjectTypeCodeRole": role,
    }


def _study(
    event: TransferBegun | Transferred | StudyAccessed | StudyDeleted | Administered, life: str = ""
) -> Message:
    told = _object("2", "3", _STUDY, event.study_instance_uid, "study")
    if isinstance(event, TransferBegun | Transferred) and event.sop_classes:
        classes = [
            {"UID": clean(uid), "NumberOfInstances": str(number)} for uid, number in event.sop_classes.items()
        ]
        told = {"ParticipantObjectIDTypeCode": told.pop("ParticipantObjectIDTypeCode")} | {
            "ParticipantObjectName": told.pop("ParticipantObjectName"),
            "ParticipantObjectDescription": [{"SOPClass": classes}],
            **told,
        }
    return told | ({"ParticipantObjectDataLifeCycle": life} if life else {})


def to_xml(told: Mapping[str, Any]) -> bytes:
    """Return a message as the XML of PS3.15 A.5.1, in UTF-8 without a declaration."""
    return ET.tostring(_element("AuditMessage", told), encoding="unicode").encode("utf-8")


def _element(name: str, fields: Mapping[str, Any]) -> ET.Element:
    element = ET.Element(name)
    for key, value in fields.items():
        if isinstance(value, str):
            text = _base64(value) if (name, key) in _BASE64 else value
            if key in _TEXT_ELEMENTS:
                ET.SubElement(element, key).text = text
            else:
                element.set(key, text)
        else:
            several: Sequence[Mapping[str, Any]] = [value] if isinstance(value, Mapping) else value
            element.extend(_element(key, one) for one in several)
    return element


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")
