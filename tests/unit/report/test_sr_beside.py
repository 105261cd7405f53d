"""A score measured beside the one that decides: its own group, its own algorithm, no say in the result."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import Comprehensive3DSR, srread
from pydicom import dcmread

from dicom_node.domain.errors import ReportError
from dicom_node.domain.types import ImageResult, Measurement, Verdict
from dicom_node.report import sr
from dicom_node.report.text import facts, render
from tests.peers_validators import dciodvfy, dsrdump
from tests.unit.report.builders import (
    AT,
    CR,
    DX,
    DX_FOR_PROCESSING,
    EQUIPMENT,
    HIGH,
    LOW,
    PROVENANCE,
    SC,
    WRONG_VIEW,
    header,
    image,
    result,
)

SALAD = dataclasses.replace(
    PROVENANCE,
    bank_hash="cd" * 32,
    bank_name="salad-adults",
    algorithm="SALAD, mean angle to the nearest memory rows of normal images",
    backbone="salad-encoder",
    head="none",
    k=100,
    views=("squash",),
)
ABOVE = dataclasses.replace(HIGH, value=0.4375, percentile=99.5, z_score=4.25, threshold=0.40625)


def both(number: int = 1, **changes: object) -> ImageResult:
    """Return an image that Deep kNN puts below its threshold, and SALAD, beside it, above."""
    outcome: dict[str, object] = {"score": LOW, "also": (Measurement(ABOVE, SALAD),)}
    return image(number, **(outcome | changes))


def report(*images: ImageResult, sop_class: str = CR) -> sr.Report:
    made = [dataclasses.replace(one, sop_class_uid=sop_class) for one in images or (both(),)]
    uids = [{"SOPInstanceUID": i.sop_instance_uid.encode(), "SOPClassUID": sop_class.encode()} for i in made]
    headers = [header(changes) for changes in uids]  # type: ignore[arg-type]
    return sr.build(result(Verdict.BELOW, made, decisive=0), headers, EQUIPMENT, AT)


def test_both_scores_come_back_each_with_its_algorithm_and_bank() -> None:
    said = facts(report().content)
    assert (said["score"], said["bank_hash"], said["algorithm"]) == (LOW.value, "ab" * 32, "deep-knn")
    assert said["images"][0]["reason"] == ""
    assert len(said["images"]) == 1
    (beside,) = said["images"][0]["also"]
    assert (beside["score"], beside["percentile"], beside["z_score"]) == (0.4375, 99.5, 4.25)
    assert (beside["threshold"], beside["above"]) == (0.40625, True)
    assert (beside["bank_hash"], beside["algorithm"]) == ("cd" * 32, SALAD.algorithm)
    assert (beside["parameters"]["k"], beside["parameters"]["backbone"]) == ("100", "salad-encoder")


def test_a_score_beside_changes_no_verdict_and_the_sentence_says_so() -> None:
    said = facts(report().content)
    assert said["verdict"] == "below threshold"
    assert said["outcome"] == "111241"
    assert (
        f"CR and DX; Phantom site). Measured beside it, without deciding: {SALAD.algorithm}: more unusual than 99.5 % "
        "of 210 calibration images, above its threshold. Research result"
    ) in said["summary"]
    assert "it does not decide the result" in render(report().content)


def test_each_measurement_is_a_group_of_its_own_with_its_own_tracking_uid() -> None:
    document = srread(BytesIO(report().content))
    assert isinstance(document, Comprehensive3DSR)
    groups = document.content.get_image_measurement_groups()
    assert [len(group.get_measurements()) for group in groups] == [1, 1]
    assert len({str(group.tracking_uid) for group in groups}) == 2
    assert [group.tracking_identifier for group in groups] == ["Image 1", "Image 1, measurement 2"]


def test_images_with_and_without_a_second_score_keep_theirs() -> None:
    said = facts(report(both(1), image(2, score=LOW), image(3, refusal=WRONG_VIEW), both(4)).content)
    assert [len(one["also"]) for one in said["images"]] == [1, 0, 0, 1]
    assert [one["score"] for one in said["images"]] == [LOW.value, LOW.value, None, LOW.value]


def test_two_refused_objects_of_one_uid_stay_two() -> None:
    twins = [image(1, refusal=WRONG_VIEW), image(1, refusal=WRONG_VIEW)]
    made = sr.build(result(Verdict.NOT_ANALYSED, twins, decisive=None), [header(), header()], EQUIPMENT, AT)
    assert [one["also"] for one in facts(made.content)["images"]] == [[], []]


def test_the_reports_uid_is_that_of_all_banks_that_measured() -> None:
    other = dataclasses.replace(SALAD, bank_hash="ef" * 32)
    uids = {
        report(one).sop_instance_uid for one in (both(), both(also=()), both(also=(Measurement(ABOVE, other),)))
    }
    assert len(uids) == 3
    assert report().content == report().content


def test_a_score_beside_needs_its_banks_hash_a_finite_value_and_one_that_decides() -> None:
    nameless = Measurement(ABOVE, dataclasses.replace(SALAD, bank_hash=""))
    endless = Measurement(dataclasses.replace(ABOVE, value=float("nan")), SALAD)
    for also, message in ((nameless, "without its bank's hash"), (endless, "must be finite")):
        with pytest.raises(ReportError, match=message):
            report(both(also=(also,)))
    alone = image(1, refusal=WRONG_VIEW, also=(Measurement(ABOVE, SALAD),))
    with pytest.raises(ReportError, match="no score decides"):
        sr.build(result(Verdict.NOT_ANALYSED, [alone], decisive=None), [header()], EQUIPMENT, AT)


def test_a_report_without_a_second_score_has_the_identity_it_always_had() -> None:
    made = sr.build(result(Verdict.ABOVE), [header()], EQUIPMENT, AT)
    ds = dcmread(BytesIO(made.content))
    assert ds.SOPInstanceUID == "2.25.21496021905644517120128482529782600656"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sop_class", [CR, DX, DX_FOR_PROCESSING, SC])
def test_dciodvfy_finds_no_error_in_a_report_of_both(sop_class: str, tmp_path: Path) -> None:
    assert dciodvfy(report(sop_class=sop_class).content, tmp_path) == []


@pytest.mark.peer("dsrdump")
def test_dcmtk_shows_both_algorithms(tmp_path: Path) -> None:
    shown = dsrdump(report().content, tmp_path)
    assert "deep-knn" in shown
    assert SALAD.algorithm in shown
