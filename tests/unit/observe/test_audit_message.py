"""Audit messages hold what PS3.15 A.5.3 asks for, and are valid by the schema of A.5.1 whatever text comes in."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

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
from dicom_node.observe.audit_message import AuditSource, message, to_xml

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit_message.rng")))
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SOURCE = AuditSource("NODE-1", "hospital", "DICOMNODE", "host:42", "host")
PACS = Party("PACS", "10.0.0.5")
CR = "1.2.840.10008.5.1.4.1.1.1"
HOSTILE = (
    "<&>\"' ]]>\x00\x1b[31m\n\r\t\u2028\ufffe\ud800 <!ENTITY x SYSTEM 'file:///etc/passwd'>\U0001f480" * 40
)


def every(text: str) -> list[AuditEvent]:
    """Return one event of each type, and of each setting, with `text` wherever text comes from outside."""
    peer = Party(text, text)
    return [
        ApplicationActivity(AT, started=True),
        ApplicationActivity(AT, started=False),
        AssociationOpened(AT, peer, text),
        AssociationRejected(AT, peer, text, text),
        TransferBegun(AT, text, {text: 2}, peer),
        Transferred(AT, text, {text: 2, "1.2": 1}, peer),
        Transferred(AT, text, {}, peer, sent=True, outcome=AuditOutcome.SERIOUS_FAILURE, description=text),
        StudyAccessed(AT, text, text, text),
        StudiesListed(AT, text, text, text),
        StudyDeleted(AT, text),
        StudyDeleted(AT, text, text),
        AuditLogUsed(AT, text),
        *(Administered(AT, text, setting, text, text, text, description=text) for setting in Setting),
        *(StepRequested(AT, peer, action, text, text, description=text) for action in StepAction),
        UserAuthenticated(AT, text, text, login=False),
        UserAuthenticated(AT, text, text, outcome=AuditOutcome.MINOR_FAILURE, description=text),
    ]


def xml(event: AuditEvent, patient_id: str = "", source: AuditSource = SOURCE) -> etree._Element:
    """Return the message's XML, valid, as another program reads it."""
    parsed = etree.fromstring(to_xml(message(event, source, patient_id)))
    assert SCHEMA.validate(parsed), SCHEMA.error_log
    return parsed


def test_no_type_of_event_is_missing_here() -> None:
    assert {type(event) for event in every("x")} == set(get_args(AuditEvent))


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3", HOSTILE, "\x00" * 10], ids=["empty", "x", "uid", "hostile", "nul"]
)
def test_every_message_is_valid_by_the_schema_whatever_text_comes_from_outside(text: str) -> None:
    for event in every(text):
        xml(event, text, AuditSource(text, text, text, text, text))


@given(st.text())
def test_any_text_at_all_gives_a_valid_message(text: str) -> None:
    xml(Transferred(AT, text, {text: 1}, Party(text, text), description=text), text)


def test_the_schema_of_this_test_refuses_what_the_standard_does() -> None:
    good = to_xml(message(StudyAccessed(AT, "me", "1.2.3"), SOURCE)).decode()
    assert SCHEMA.validate(etree.fromstring(good))
    for right, wrong in (
        ('EventActionCode="R"', 'EventActionCode="X"'),
        ('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        ('csd-code="110103"', 'code="110103"'),
        ('UserIsRequestor="true"', ""),
        ("<ParticipantObjectName>study</ParticipantObjectName>", ""),
    ):
        assert right in good
        assert not SCHEMA.validate(etree.fromstring(good.replace(right, wrong))), wrong


def test_the_json_says_the_same_as_the_xml() -> None:
    for event in every(HOSTILE):
        told = message(event, SOURCE)
        assert to_xml(json.loads(json.dumps(told))) == to_xml(told)


def codes(parsed: etree._Element, path: str) -> list[str]:
    return [
        f"{e.get('csd-code')} {e.get('codeSystemName')} {e.get('originalText')}" for e in parsed.iterfind(path)
    ]


@pytest.mark.parametrize(
    ("event", "code", "kind", "action"),
    [
        (
            ApplicationActivity(AT, started=True),
            "110100 DCM Application Activity",
            "110120 DCM Application Start",
            "E",
        ),
        (
            StepRequested(AT, PACS, StepAction.CREATE, "N-CREATE", "1.2.3"),
            "110111 DCM Procedure Record",
            None,
            "C",
        ),
        (StepRequested(AT, PACS, StepAction.QUERY, "C-FIND", ""), "110112 DCM Query", None, "E"),
        (
            ApplicationActivity(AT, started=False),
            "110100 DCM Application Activity",
            "110121 DCM Application Stop",
            "E",
        ),
        (
            AssociationRejected(AT, PACS, "X", "no"),
            "110113 DCM Security Alert",
            "110126 DCM Node Authentication",
            "E",
        ),
        (AssociationOpened(AT, PACS, "X"), "110113 DCM Security Alert", "110126 DCM Node Authentication", "E"),
        (TransferBegun(AT, "1.2", {CR: 1}, PACS), "110102 DCM Begin Transferring DICOM Instances", "", "E"),
        (Transferred(AT, "1.2", {CR: 1}, PACS), "110104 DCM DICOM Instances Transferred", "", "C"),
        (
            Transferred(AT, "1.2", {CR: 1}, PACS, already_held=True),
            "110104 DCM DICOM Instances Transferred",
            "",
            "R",
        ),
        (Transferred(AT, "1.2", {CR: 1}, PACS, sent=True), "110104 DCM DICOM Instances Transferred", "", "R"),
        (StudyAccessed(AT, "me", "1.2"), "110103 DCM DICOM Instances Accessed", "", "R"),
        (StudyDeleted(AT, "1.2"), "110105 DCM DICOM Study Deleted", "", "D"),
        (StudiesListed(AT, "me", "all"), "110112 DCM Query", "", "E"),
        (AuditLogUsed(AT, "me"), "110101 DCM Audit Log Used", "", "R"),
        (UserAuthenticated(AT, "me", "10.0.0.1"), "110114 DCM User Authentication", "110122 DCM Login", "E"),
        (
            Administered(AT, "me", Setting.SOFTWARE, "bank activate", "bank/b"),
            "110113 DCM Security Alert",
            "110131 DCM Software Configuration",
            "E",
        ),
    ],
)
def test_each_event_has_the_code_and_the_action_of_its_section(
    event: AuditEvent, code: str, kind: str, action: str
) -> None:
    parsed = xml(event)
    assert codes(parsed, "EventIdentification/EventID") == [code]
    assert codes(parsed, "EventIdentification/EventTypeCode") == ([kind] if kind else [])
    (identification,) = parsed.iterfind("EventIdentification")
    assert identification.get("EventActionCode") == action
    assert identification.get("EventDateTime") == "2026-01-02T03:04:05.678+00:00"
    requestors = [
        p.get("UserID") for p in parsed.iterfind("ActiveParticipant") if p.get("UserIsRequestor") == "true"
    ]
    assert len(requestors) <= 1, "A.5.2: at most one participant is the requestor"


def test_a_rejected_association_is_a_failure_that_names_peer_and_reason() -> None:
    parsed = xml(AssociationRejected(AT, Party("EVIL", "192.0.2.7"), "DICOMNODE", "not among receive.peers"))
    assert parsed.find("EventIdentification").get("EventOutcomeIndicator") == "8"
    assert parsed.find("EventIdentification/EventOutcomeDescription").text == "not among receive.peers"
    peer = parsed.findall("ActiveParticipant")[1]
    assert (peer.get("AlternativeUserID"), peer.get("NetworkAccessPointID")) == ("AETITLES=EVIL", "192.0.2.7")
    alert = parsed.find("ParticipantObjectIdentification")
    assert codes(alert, "ParticipantObjectIDTypeCode") == ["110182 DCM Node ID"]
    detail = alert.find("ParticipantObjectDetail")
    assert detail.get("type") == "Alert Description"
    assert b"not among receive.peers" in base64.b64decode(detail.get("value"))


def test_a_transfer_says_who_sent_what_to_whom() -> None:
    parsed = xml(Transferred(AT, "1.2.3", {CR: 2}, PACS))
    roles = {p.get("AlternativeUserID"): codes(p, "RoleIDCode") for p in parsed.iterfind("ActiveParticipant")}
    assert roles == {
        "AETITLES=DICOMNODE": ["110152 DCM Destination Role ID"],
        "AETITLES=PACS": ["110153 DCM Source Role ID"],
    }
    (study,) = parsed.iterfind("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2.3"
    assert codes(study, "ParticipantObjectIDTypeCode") == ["110180 DCM Study Instance UID"]
    sop_class = study.find("ParticipantObjectDescription/SOPClass")
    assert (sop_class.get("UID"), sop_class.get("NumberOfInstances")) == (CR, "2")


def test_the_patient_is_named_only_where_an_id_is_given() -> None:
    event = StudyAccessed(AT, "me", "1.2.3")
    assert len(xml(event).findall("ParticipantObjectIdentification")) == 1
    patient = xml(event, "P1").findall("ParticipantObjectIdentification")[1]
    assert patient.get("ParticipantObjectID") == "P1"
    assert patient.get("ParticipantObjectTypeCode") == patient.get("ParticipantObjectTypeCodeRole") == "1"
    assert codes(patient, "ParticipantObjectIDTypeCode") == ["2 RFC-3881 Patient Number"]
    assert xml(AuditLogUsed(AT, "me"), "P1").findtext(".//ParticipantObjectName") == "Security Audit Log"
    assert "P1" not in etree.tostring(xml(AuditLogUsed(AT, "me"), "P1"), encoding="unicode")


@pytest.mark.parametrize(
    ("address", "kind"), [("10.0.0.1", "2"), ("fe80::1%eth0", "2"), ("::1", "2"), ("pacs.example", "1")]
)
def test_an_address_is_told_from_a_name(address: str, kind: str) -> None:
    peer = xml(AssociationOpened(AT, Party("P", address), "X")).findall("ActiveParticipant")[1]
    assert peer.get("NetworkAccessPointTypeCode") == kind
