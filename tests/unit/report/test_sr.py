from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import timedelta, timezone
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import Comprehensive3DSR, srread
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.domain.types import Report, StudyResult, Verdict
from dicom_node.report import sr
from dicom_node.report.text import facts, render
from tests.unit.report.builders import (
    AT,
    DX_FOR_PROCESSING,
    EQUIPMENT,
    HIGH,
    LOW,
    NAMES,
    PROVENANCE,
    SC,
    SERIES,
    STUDY,
    UNDECODABLE,
    USUAL,
    header,
    image,
    raw,
    result,
    several,
)

REPOSITORY = Path(__file__).resolve().parents[3]


def build(verdict: Verdict = Verdict.ABOVE, **changes: object) -> Report:
    return sr.build(result(verdict), [header(changes)], EQUIPMENT, AT)  # type: ignore[arg-type]


def read(report: Report) -> Dataset:
    return dcmread(BytesIO(report.content))


@pytest.mark.parametrize("verdict", Verdict)
def test_the_header_says_what_the_report_is(verdict: Verdict) -> None:
    report = build(verdict)
    ds = read(report)
    assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID == Comprehensive3DSRStorage
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == report.sop_instance_uid
    assert ds.StudyInstanceUID == report.study_instance_uid == STUDY
    assert ds.SeriesInstanceUID == report.series_instance_uid != SERIES
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert ds.Modality == "SR"
    assert len(ds.ReferencedPerformedProcedureStepSequence) == len(ds.PerformedProcedureCodeSequence) == 0
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    declared = ds.CodingSchemeIdentificationSequence[0]
    assert declared.CodingSchemeDesignator == "99DICOMNODE"
    assert declared.CodingSchemeResponsibleOrganization == "dicom_node"


@pytest.mark.parametrize("verdict", Verdict)
def test_highdicom_reads_it_as_a_measurement_report(verdict: Verdict) -> None:
    document = srread(BytesIO(build(verdict).content))
    assert isinstance(document, Comprehensive3DSR)
    groups = document.content.get_image_measurement_groups()
    assert [[str(s.referenced_sop_instance_uid) for s in group.source_images] for group in groups] == [
        [USUAL["SOPInstanceUID"].decode()]
    ]
    scored = verdict in (Verdict.ABOVE, Verdict.BELOW)
    assert [len(group.get_measurements()) for group in groups] == [1 if scored else 0]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict.ABOVE, "111242"),
        (Verdict.BELOW, "111241"),
        (Verdict.NOT_ANALYSED, "111245"),
        (Verdict.FAILED, "111245"),
    ],
)
def test_one_tree_serves_every_verdict(verdict: Verdict, outcome: str) -> None:
    said = facts(build(verdict).content)
    assert said["verdict"] == verdict.value
    assert said["outcome"] == outcome
    score = {Verdict.ABOVE: HIGH, Verdict.BELOW: LOW}.get(verdict)
    assert said["score"] == (score and score.value)
    assert said["percentile"] == (score and score.percentile)
    assert said["threshold"] == (score and score.threshold)
    assert said["above"] == (score and score.above)
    assert said["bank_hash"] == (score and PROVENANCE.bank_hash)
    assert bool(said["images"][0]["reason"]) == (score is None)


def test_the_sentence_for_people_comes_first_and_leads_with_the_percentile() -> None:
    ds = read(build())
    first = next(item for item in ds.ContentSequence if item.RelationshipType == "CONTAINS")
    assert first.TextValue == (
        "More unusual than 97.3 % of this site's normal chests, above threshold (210 calibration images; adults, PA, "
        "CR and DX; Phantom site). Research result, unverified, not a diagnosis."
    )


def test_a_percentile_is_never_rounded_up() -> None:
    nearly = dataclasses.replace(HIGH, percentile=99.97)
    report = sr.build(result(Verdict.ABOVE, [image(score=nearly)]), [header()], EQUIPMENT, AT)
    assert facts(report.content)["summary"].startswith("More unusual than 99.9 % of")


def test_a_score_above_every_normal_says_all_and_not_100_percent() -> None:
    beyond = dataclasses.replace(HIGH, percentile=100.0)
    report = sr.build(result(Verdict.ABOVE, [image(score=beyond)]), [header()], EQUIPMENT, AT)
    assert facts(report.content)["summary"].startswith(
        "More unusual than all of this site's normal chests, above threshold (210"
    )


def test_a_bank_that_calibrates_on_itself_does_not_call_its_normals_held_out() -> None:
    own = dataclasses.replace(PROVENANCE, calibration="leave-one-out")
    shown = render(
        sr.build(result(Verdict.ABOVE, [image(score=HIGH, provenance=own)]), [header()], EQUIPMENT, AT).content
    )
    assert "held-out" not in shown
    assert "210 normal images of the bank, each compared with the others" in shown


@pytest.mark.parametrize("verdict", [Verdict.NOT_ANALYSED, Verdict.FAILED])
def test_a_report_without_a_score_says_why_and_that_it_says_nothing(verdict: Verdict) -> None:
    study = result(verdict)
    summary = facts(build(verdict).content)["summary"]
    assert study.reason in summary
    assert "says nothing about what the images show" in summary


def test_several_images_each_have_a_group_and_the_study_one_outcome() -> None:
    study, headers = several()
    report = sr.build(study, headers, EQUIPMENT, AT)
    said = facts(report.content)
    assert [i["score"] for i in said["images"]] == [LOW.value, HIGH.value, None]
    assert said["images"][2]["reason"] == "Not analysed: view position LL is not one of PA, AP"
    assert said["score"] == HIGH.value
    assert "Image 2 of 3 decides. Not scored: 1 of 3 images." in said["summary"]
    ds = read(report)
    evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [e.ReferencedSOPInstanceUID for e in evidence] == [i.sop_instance_uid for i in study.images]
    library = next(i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
    assert len(library.ContentSequence[0].ContentSequence) == 3


def test_the_algorithm_is_named_with_its_bank_and_parameters() -> None:
    said = facts(build().content)
    assert said["algorithm"] == "deep-knn"
    assert said["parameters"] == {
        "bank_hash": "ab" * 32,
        "bank_name": "adults-pa",
        "bank_created_at": "2026-01-01T00:00:00+00:00",
        "backbone": "efficientnet_lite0",
        "head": "identity",
        "k": "5",
        "views": "squash,flip",
        "false_positive_rate": "0.05",
        "normal_images": "1341",
        "calibration": "held-out",
        "calibration_images": "210",
        "threshold": repr(HIGH.threshold),
    }


def test_the_backbones_weights_are_identified_with_licence_and_training_data() -> None:
    own = dataclasses.replace(
        PROVENANCE, weights_sha256="cd" * 32, weights_licence="CC-BY-NC-4.0", training_data="ImageNet-1k"
    )
    study = result(Verdict.ABOVE, [image(score=HIGH, provenance=own)])
    parameters = facts(sr.build(study, [header()], EQUIPMENT, AT).content)["parameters"]
    assert parameters["weights_sha256"] == "cd" * 32
    assert parameters["weights_licence"] == "CC-BY-NC-4.0"
    assert parameters["training_data"] == "ImageNet-1k"


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("verdict", [Verdict.ABOVE, Verdict.FAILED])
def test_names_come_back_byte_for_byte_under_their_character_set(what: str, verdict: Verdict) -> None:
    charset, name = NAMES[what]
    report = build(
        verdict,
        SpecificCharacterSet=charset,
        PatientName=name,
        ReferringPhysicianName=name,
        StudyDescription=name,
    )
    ds = read(report)
    assert (raw(ds, "SpecificCharacterSet") or b"") == charset
    for keyword in ("PatientName", "ReferringPhysicianName", "StudyDescription"):
        assert raw(ds, keyword) == name, keyword


def test_texts_of_ours_are_legal_under_the_copied_character_set() -> None:
    equipment = dataclasses.replace(EQUIPMENT, institution_name="Klinikum München — 東京", manufacturer="a\\b")
    plain = read(sr.build(result(Verdict.BELOW), [header()], equipment, AT))
    assert raw(plain, "InstitutionName") == b"Klinikum Munchen ? ??"
    assert raw(plain, "Manufacturer") == b"a/b"
    source = header({"SpecificCharacterSet": b"ISO_IR 192"})
    unicode = read(sr.build(result(Verdict.BELOW), [source], equipment, AT))
    assert unicode.InstitutionName == "Klinikum München — 東京"


def test_the_offset_of_the_images_is_kept_and_our_stamps_are_converted_to_it() -> None:
    ds = read(build(TimezoneOffsetFromUTC=b"-0400"))
    assert (ds.TimezoneOffsetFromUTC, ds.ContentDate, ds.ContentTime) == ("-0400", "20260304", "010607")
    assert ds.ObservationDateTime == "20260304010607.890123-0400"
    assert raw(ds, "StudyTime") == USUAL["StudyTime"]


def test_without_an_offset_our_stamps_are_local_to_the_node_and_only_the_observation_says_where() -> None:
    at = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    ds = read(sr.build(result(Verdict.BELOW), [header()], EQUIPMENT, at))
    assert "TimezoneOffsetFromUTC" not in ds
    assert ds.ContentTime == ds.InstanceCreationTime == "103607"
    assert ds.ObservationDateTime == "20260304103607.890123+0530"


def test_a_later_report_names_the_ones_it_supersedes() -> None:
    first = build()
    second = sr.build(result(Verdict.ABOVE, revision=2), [header()], EQUIPMENT, AT, predecessors=[first])
    assert second.sop_instance_uid != first.sop_instance_uid
    assert second.series_instance_uid == first.series_instance_uid
    ds = read(second)
    item = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert item.SeriesInstanceUID == first.series_instance_uid
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_instance_uid


def test_two_processes_make_the_same_bytes() -> None:
    program = (
        "import hashlib, sys\n"
        "from dicom_node.report import sr\n"
        "from dicom_node.domain.types import Verdict\n"
        "from tests.unit.report.builders import *\n"
        "study, headers = several()\n"
        "made = [sr.build(study, headers, EQUIPMENT, AT)]\n"
        "made += [sr.build(result(v), [header()], EQUIPMENT, AT) for v in Verdict]\n"
        "print(hashlib.sha256(b''.join(r.content for r in made)).hexdigest())\n"
    )
    seen = set()
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_a_retry_makes_the_same_object_although_a_program_looked_at_the_source() -> None:
    source = header({"SpecificCharacterSet": b"ISO_IR 144", "PatientName": NAMES["cyrillic"][1]})
    before = sr.build(result(Verdict.ABOVE), [source], EQUIPMENT, AT)
    assert str(source)  # decodes every value
    assert sr.build(result(Verdict.ABOVE), [source], EQUIPMENT, AT) == before


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("sop_class", [SC, DX_FOR_PROCESSING, "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3.4"])
def test_odd_sop_classes_are_reported_too(verdict: Verdict, sop_class: str) -> None:
    study = result(verdict)
    odd = dataclasses.replace(study.images[0], sop_class_uid=sop_class)
    report = sr.build(
        dataclasses.replace(study, images=(odd,)), [header({"SOPClassUID": sop_class.encode()})], EQUIPMENT, AT
    )
    said = facts(report.content)
    assert said["verdict"] == verdict.value
    if "88.11" in sop_class or sop_class == "1.2.3.4":
        assert said["images"] == []
        assert odd.sop_instance_uid in said["comments"][0]


def test_an_unusable_header_still_gets_a_report() -> None:
    report = sr.build(result(Verdict.FAILED), [Dataset()], EQUIPMENT, AT)
    ds = read(report)
    assert raw(ds, "PatientName") == b""
    assert facts(ds)["verdict"] == "failed"


def test_a_study_without_images_still_gets_a_report() -> None:
    empty = StudyResult(STUDY, 1, Verdict.FAILED, (), "the stored files are gone")
    ds = read(sr.build(empty, [], EQUIPMENT, AT))
    assert "CurrentRequestedProcedureEvidenceSequence" not in ds
    assert "the stored files are gone" in facts(ds)["summary"]


def test_the_patient_comes_from_the_image_that_decides_and_a_disagreement_is_said() -> None:
    study, headers = several()
    headers[0] = header({"SOPInstanceUID": b"1.2.276.0.1.1.1.1", "PatientID": b"P2"})
    report = sr.build(study, headers, EQUIPMENT, AT)
    assert raw(read(report), "PatientID") == b"P1"
    remark = "The images of this study do not agree on the Patient ID; check to whom they belong."
    assert remark in report.notes
    assert remark in facts(report.content)["comments"]


def test_the_patient_comes_from_a_header_that_has_one() -> None:
    images = [image(1, refusal=UNDECODABLE), image(2, refusal=UNDECODABLE)]
    headers = [Dataset(), header({"SOPInstanceUID": b"1.2.276.0.1.1.1.2"})]
    report = sr.build(result(Verdict.FAILED, images), headers, EQUIPMENT, AT)
    assert raw(read(report), "PatientID") == b"P1"
