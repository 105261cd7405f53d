"""deploy/CONFORMANCE.md is what the program prints; what it states holds of associations, answers and reports."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node import __version__
from dicom_node.config import Config, load
from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.domain.types import (
    ImageResult,
    Refusal,
    StudyResult,
    Verdict,
)
from dicom_node.node.stating import conformance_statement
from dicom_node.receive import guard, identity
from dicom_node.receive import status as store_status
from dicom_node.receive.commitment import ACTION_MEANINGS, EVENT_MEANINGS
from dicom_node.report import codes, encoding, sr
from dicom_node.security.contexts import CIPHER_SUITES
from tests.deployment import ROOT
from tests.phantoms import chest_dataset
from tests.statement import FLAT, SCP, SCU, TEXT, section, table

MEANINGS = {"stored": Meaning.STORED, "sent again later": Meaning.AWAY, "refused": Meaning.REFUSED}


def test_the_file_is_what_the_program_prints_byte_for_byte() -> None:
    assert conformance_statement(Config()) == TEXT, (
        "write it anew: dicom-node conformance --out deploy/CONFORMANCE.md"
    )


def test_it_follows_the_order_of_the_standard() -> None:
    numbers = [int(n) for n in re.findall(r"^## (\d+) ", TEXT, re.MULTILINE)]
    assert numbers == [1, 3, 4, 5, 6, 7, 8]  # 2 is a table of contents
    assert f"dicom_node {__version__} " in TEXT
    assert "not a medical device" in FLAT


SITE = {
    "receive": {
        "ae_title": "XRAI",
        "max_associations": 7,
        "commitment": False,
        "peers": [{"ae_title": "CR1", "addresses": ["192.0.2.0/24"], "sop_classes": ["CR"]}],
    },
    "destinations": [
        {
            "name": "pacs",
            "ae_title": "BIGPACS",
            "host": "192.0.2.9",
            "port": 104,
            "username": "hidden-user",
            "passcode_file": "hidden-file",
            "report_classes": ["enhanced"],
            "confirm": "find",
        }
    ],
}


def test_a_sites_statement_tells_its_titles_peers_limits_and_destinations_and_no_secret() -> None:
    text = conformance_statement(load(flags=SITE))
    for told in (
        "| AE title, called | `receive.ae_title` | DICOMNODE | XRAI |",
        "| associations at a time | 7 (configurable) |",
        "| CR1 | 192.0.2.0/24 | CR | no limit of its own | any |",
        "| pacs | dicom | BIGPACS at 192.0.2.9:104 | no | enhanced | none | find |",
        "| Enhanced SR Storage | 1.2.840.10008.5.1.4.1.1.88.22 |",
    ):
        assert told in text
    assert "hidden" not in text
    assert "| Comprehensive 3D SR Storage | yes" not in text
    assert "| Storage Commitment Push Model SOP Class |" not in text


def test_statuses_that_answer_a_store_are_those_of_the_code() -> None:
    rows = table(SCP, "status", "meaning")
    assert {int(status, 16): meaning for status, meaning in rows} == store_status.MEANINGS
    for table_of, meanings in (("N-ACTION", ACTION_MEANINGS), ("N-EVENT-REPORT", EVENT_MEANINGS)):
        assert {int(status, 16): meaning for status, meaning in table(SCP, "status", table_of)} == meanings
    assert set(store_status.errors_by_status()) <= {int(status, 16) for status, _ in rows}


def test_rejections_are_those_of_the_guard() -> None:
    def request(**changed: Any) -> guard.Request:
        return guard.Request(**{"calling": "CR1", "called": "DICOMNODE", "address": "10.0.0.1", **changed})

    settings = {"peers": [{"ae_title": "CR1"}], "require_called_ae_title": True, "max_associations": 1}
    config = load(flags={"receive": settings}).receive
    nothing = guard.Open()
    seen = [
        guard.judge(request(application_context="1.2.3"), config, nothing, stopping=False),
        guard.judge(request(calling="CR2"), config, nothing, stopping=False),
        guard.judge(request(called="OTHER"), config, nothing, stopping=False),
        guard.judge(request(protocol_version=2), config, nothing, stopping=False),
        guard.judge(request(), config, nothing, stopping=True),
        guard.judge(request(), config, guard.Open(total=1), stopping=False),
    ]
    rows = [
        [int(cell.split()[0]) for cell in row[:3]] for row in table(SCP, "result", "source", "reason", "when")
    ]
    assert rows == [[r.result, r.source, r.reason] for r in seen if isinstance(r, guard.Rejection)]


def test_statuses_that_a_destination_may_answer_are_taken_as_the_code_takes_them() -> None:
    rows = {status: taken for status, _, taken in table(SCU, "status", "meaning", "taken as")}
    other = MEANINGS[rows.pop("any other")]
    named: dict[int, Meaning] = {}
    for status, meaning in rows.items():
        digits = status.removeprefix("0x")
        low, high = int(digits.replace("x", "0"), 16), int(digits.replace("x", "F"), 16)
        named |= dict.fromkeys(range(low, high + 1), MEANINGS[meaning])
    assert {s: judge_status(s)[0] for s in range(0x10000)} == {s: named.get(s, other) for s in range(0x10000)}


def test_the_key_of_every_stated_parameter_is_one_of_the_configuration() -> None:
    rows = table(section("4 Networking", "4.4 Configuration"), "parameter", "key", "default")
    keys = [key.strip("`") for _, key, _ in rows]
    assert len(keys) == len(set(keys)) > 20
    shown = (ROOT / "config.toml").read_text(encoding="utf-8")
    for key in keys:
        assert re.search(rf"^(# )?(\[\[)?{key.rpartition('.')[2]}( = |\]\])", shown, re.MULTILINE), key


def test_transport_security_is_that_of_the_code() -> None:
    stated: dict[str, str] = dict(table(section("7 Security"), "property", "value"))
    assert stated["cipher suites of TLS 1.2"] == ", ".join(CIPHER_SUITES)
    assert stated["port for TLS"].split()[0] == str(load().receive.tls.port)
    assert load().receive.tls.client_certificates == "required"
    failed = [str(number) for number in identity.FAILED]
    assert (
        f"result {failed[0]} permanent, source {failed[1]} service provider (ACSE), reason {failed[2]}" in FLAT
    )


def test_the_private_codes_are_all_that_the_code_has() -> None:
    named = (codes.SCORE, codes.VERDICT, codes.NEAREST, codes.REGION_SHARE, codes.QUALITY_NOTE)
    private = {*named, *codes.VERDICTS.values()}
    annexes = section("8 Annexes", "8.3 Coded terminology")
    assert {tuple(row) for row in table(annexes, "code", "meaning")} == {(c.value, c.meaning) for c in private}


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
    annex = section("8 Annexes", "8.1 IOD contents", "8.1.1 Structured Reports")
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
