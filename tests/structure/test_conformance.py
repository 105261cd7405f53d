"""deploy/CONFORMANCE.md, held against the program: tables, defaults, and the identifiers on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicom_node import __version__
from dicom_node.config import Receive, load
from dicom_node.deliver import scu
from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.domain.types import (
    Destination,
    ImageResult,
    Ingested,
    Received,
    Refusal,
    StudyResult,
    Verdict,
)
from dicom_node.receive import contexts, guard
from dicom_node.receive import status as store_status
from dicom_node.receive.scp import Scp
from dicom_node.report import codes, encoding, sr
from tests.deployment import DEPLOY
from tests.phantoms import chest_dataset

TEXT = (DEPLOY / "CONFORMANCE.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())
MEANINGS = {"stored": Meaning.STORED, "sent again later": Meaning.AWAY, "refused": Meaning.REFUSED}


def section(*path: str) -> str:
    """Return the text under a heading, from the heading before it on; each heading is found after the last."""
    text = TEXT
    for heading in path:
        found = re.search(rf"^(#+) {re.escape(heading)}$(.*)", text, re.MULTILINE | re.DOTALL)
        assert found, f"there is no heading {heading!r}"
        end = re.search(rf"^#{{1,{len(found[1])}}} ", found[2], re.MULTILINE)
        text = found[2][: end.start()] if end else found[2]
    return text


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the table with this header."""
    lines = text.splitlines()
    start = lines.index(f"| {' | '.join(header)} |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


SCP = section("4 Networking", "4.2 AE specifications", "4.2.1 Storage SCP AE")
SCU = section("4 Networking", "4.2 AE specifications", "4.2.2 Storage SCU AE")


def test_it_follows_the_order_of_the_standard() -> None:
    numbers = [int(n) for n in re.findall(r"^## (\d+) ", TEXT, re.MULTILINE)]
    assert numbers == [1, 3, 4, 5, 6, 7, 8]  # 2 is a table of contents
    assert f"dicom_node {__version__} " in TEXT
    assert "not a medical device" in TEXT


def test_sop_classes_of_the_provider_are_those_of_the_code() -> None:
    expected = [[entry.name, entry.uid] for entry in (contexts.VERIFICATION, *contexts.STORAGE_CLASSES)]
    assert table(SCP, "SOP class", "UID") == expected


def test_transfer_syntaxes_of_the_provider_are_those_of_the_code() -> None:
    rows = table(SCP, "transfer syntax", "UID")
    assert rows == [[entry.name, entry.uid] for entry in contexts.TRANSFER_SYNTAXES]
    verification, *storage = contexts.supported_contexts()
    assert verification.transfer_syntax == [uid for _, uid in rows[:3]]
    assert all(context.transfer_syntax == [uid for _, uid in rows] for context in storage)


def test_the_overview_names_the_same_services() -> None:
    rows = table(
        section("1 Conformance statement overview"), *("network service", "as user (SCU)", "as provider (SCP)")
    )
    provided = {name for name, _, scp in rows if scp == "yes"}
    assert provided == {"Verification", *(entry.name for entry in contexts.STORAGE_CLASSES)}
    assert [name for name, scu, _ in rows if scu == "yes"] == ["Verification", "Comprehensive 3D SR Storage"]


def test_statuses_that_answer_a_store_are_those_of_the_code() -> None:
    rows = table(SCP, "status", "meaning")
    assert {int(status, 16): meaning for status, meaning in rows} == store_status.MEANINGS
    assert set(store_status.errors_by_status()) <= {int(status, 16) for status, _ in rows}


def test_rejections_are_those_of_the_guard() -> None:
    def request(calling: str = "CR1", called: str = "DICOMNODE") -> guard.Request:
        return guard.Request(calling=calling, called=called, address="10.0.0.1")

    settings: dict[str, Any] = {"own_ae_title": "DICOMNODE", "require_called": True}
    peers = load(flags={"receive": {"peers": [{"ae_title": "CR1"}]}}).receive.peers
    seen = [
        guard.check_titles(request(calling="CR2"), **settings, peers=peers),
        guard.check_titles(request(called="OTHER"), **settings, peers=peers),
        guard.check_limit(0, 1, stopping=True),
        guard.check_limit(1, 1, stopping=False),
    ]
    rows = [
        [int(cell.split()[0]) for cell in row[:3]] for row in table(SCP, "result", "source", "reason", "when")
    ]
    assert rows == [[r.result, r.source, r.reason] for r in seen if r is not None]


def test_statuses_that_a_destination_may_answer_are_taken_as_the_code_takes_them() -> None:
    rows = dict(table(SCU, "status", "taken as"))
    other = MEANINGS[rows.pop("any other")]
    named: dict[int, Meaning] = {}
    for status, meaning in rows.items():
        digits = status.removeprefix("0x")
        low, high = int(digits.replace("x", "0"), 16), int(digits.replace("x", "F"), 16)
        named |= dict.fromkeys(range(low, high + 1), MEANINGS[meaning])
    assert {s: judge_status(s)[0] for s in range(0x10000)} == {s: named.get(s, other) for s in range(0x10000)}


def test_defaults_are_those_of_the_configuration() -> None:
    config = load()
    for _, key, default in table(section("4 Networking", "4.4 Configuration"), "parameter", "key", "default"):
        part, _, name = key.strip("`").partition(".")
        value = getattr(config, part)
        value = getattr(value, name) if name else value
        shown = {None: "as called", (): "anyone" if name else "none"}.get(value, value)
        assert default == (f"{shown:g}" if isinstance(shown, float) else str(shown)), key
    assert f"`[receive] network_timeout` ({config.receive.network_timeout:g})" in FLAT
    assert f"`[deliver] timeout` ({config.deliver.timeout:g})" in FLAT


def test_private_codes_are_those_of_the_code() -> None:
    annexes = section("8 Annexes", "8.3 Coded terminology")
    private = [codes.SCORE, codes.VERDICT, *codes.VERDICTS.values()]
    assert {tuple(row) for row in table(annexes, "code", "meaning")} == {(c.value, c.meaning) for c in private}
    assert codes.SCHEME in annexes
    assert codes.SCHEME_UID in annexes


@pytest.fixture
def association(tmp_path: Path) -> Iterator[Association]:
    def ingest(received: Received) -> Ingested:
        received.path.unlink()
        return Ingested.NEW

    scp = Scp(
        Receive(port=0),
        incoming=tmp_path,
        ingest=ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=lambda: datetime.now(UTC),
    )
    with scp:
        entity = AE("CR1")
        entity.add_requested_context(contexts.VERIFICATION.uid)
        association = entity.associate(*scp.address, ae_title="DICOMNODE")
        assert association.is_established
        yield association
        association.release()


def test_the_identifiers_on_the_wire_are_the_stated_ones(association: Association) -> None:
    stated: dict[str, str] = dict(table(SCP, "property", "value"))
    acceptor = association.acceptor
    assert stated["implementation class UID"] == str(acceptor.implementation_class_uid)
    assert stated["implementation version name"] == str(acceptor.implementation_version_name)
    assert stated["maximum PDU received"].split()[0] == str(acceptor.maximum_length)
    assert stated["associations at a time"].split()[0] == str(load().receive.max_associations)
    assert stated["application context"] == str(association.acceptor.primitive.application_context_name)  # type: ignore[union-attr]


def a_report() -> bytes:
    image = chest_dataset()
    refusal = Refusal("view", "the view is lateral")
    uids = (image.SOPClassUID, image.SOPInstanceUID, image.SeriesInstanceUID)
    looked_at = ImageResult(*map(str, uids), refusal=refusal)
    study = str(image.StudyInstanceUID)
    result = StudyResult(study, 1, Verdict.NOT_ANALYSED, (looked_at,), reason=refusal.reason)
    equipment = sr.Equipment("2.25.1", "maker", "model", "0", __version__)
    return sr.build(result, [image], equipment, datetime.now(UTC)).content


def test_the_report_is_what_the_annex_says() -> None:
    report = dcmread(BytesIO(a_report()))
    annex = section("8 Annexes", "8.1 IOD contents: Comprehensive 3D SR")
    for keyword in ("CompletionFlag", "VerificationFlag", "PreliminaryFlag"):
        assert f"{keyword} {report[keyword].value}" in " ".join(annex.split())
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert str(report.file_meta.ImplementationClassUID) == encoding.IMPLEMENTATION_CLASS_UID
    assert encoding.IMPLEMENTATION_CLASS_UID in annex
    assert f"Version Name {encoding.IMPLEMENTATION_VERSION}" in " ".join(annex.split())
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    schemes = {e.value for e in report.iterall() if e.keyword == "CodingSchemeDesignator"} - {codes.SCHEME}
    assert schemes <= set(
        re.findall(r"\w+", section("8 Annexes", "8.3 Coded terminology").partition("private")[0])
    )
    assert [e.tag for e in report.iterall() if e.tag.is_private] == []


def test_the_user_proposes_what_is_stated() -> None:
    proposed: dict[str, list[str]] = {}

    def note(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            proposed.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))

    entity = AE("PACS")
    names = {entry.name: entry.uid for entry in contexts.TRANSFER_SYNTAXES}
    for uid in (contexts.VERIFICATION.uid, Comprehensive3DSRStorage):
        entity.add_supported_context(uid, list(names.values())[:2])
    handlers = [
        (evt.EVT_REQUESTED, note),
        (evt.EVT_C_STORE, lambda _event: 0),
        (evt.EVT_C_ECHO, lambda _event: 0),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        peer = Destination("pacs", "PACS", "127.0.0.1", server.server_address[1])
        scu.echo(peer, calling_ae_title="DICOMNODE")
        scu.send(peer, a_report(), calling_ae_title="DICOMNODE")
    finally:
        entity.shutdown()
    rows = table(SCU, "SOP class", "UID", "transfer syntaxes")
    assert proposed == {uid: [names[name] for name in syntaxes.split(", ")] for _, uid, syntaxes in rows}
