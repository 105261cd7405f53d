"""What must hold before a report is built: result, images and headers are of one study and agree. Pure.

A report takes its patient from the headers, so a mix-up here would file a result under another person.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite

from pydicom.dataset import Dataset

from dicom_node.domain.errors import InvalidIdentifierError, ReportError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.types import Provenance, Score, StudyResult, Verdict
from dicom_node.report.header import judged


def check(result: StudyResult, sources: Sequence[Dataset], at: datetime) -> None:
    """Raise if no truthful report can be made of these arguments.

    Raises
    ------
    ReportError
        With the UID and what would be right; see `dicom_node.report.sr.build`.
    """
    study = result.study_instance_uid
    if at.tzinfo is None:
        raise ReportError(f"study {study}: the moment of the report has no time zone; it needs one")
    if len(sources) != len(result.images):
        raise ReportError(
            f"study {study}: {len(sources)} headers for {len(result.images)} images; each image needs its own"
        )
    try:
        check_uid(study, "Study Instance UID")
        for image in result.images:
            check_uid(image.series_instance_uid, "Series Instance UID")
            check_uid(image.sop_class_uid, "SOP Class UID")
            check_uid(image.sop_instance_uid, "SOP Instance UID")
    except InvalidIdentifierError as error:
        raise ReportError(f"study {study[:64]}: {error}") from error
    for image, source in zip(result.images, sources, strict=True):
        for keyword, expected in (
            ("StudyInstanceUID", study),
            ("SOPInstanceUID", image.sop_instance_uid),
        ):
            found = (judged(source, keyword)[0] or b"").decode()
            if found and found != expected:
                raise ReportError(
                    f"image {image.sop_instance_uid} of study {study}: its header says {keyword} {found}; "
                    "a report takes its patient from the header, so they must agree"
                )
        if image.score is None:
            if image.also:
                raise ReportError(f"image {image.sop_instance_uid}: no score decides, yet others are beside it")
            continue
        for score, made_by in (
            (image.score, image.provenance),
            *((measured.score, measured.provenance) for measured in image.also),
        ):
            _check_score(image.sop_instance_uid, score, made_by)
    _check_verdict(result)


def _check_score(sop_instance_uid: str, score: Score, made_by: Provenance | None) -> None:
    if made_by is None or not made_by.bank_hash:
        raise ReportError(f"image {sop_instance_uid}: a score without its bank's hash is not reported")
    if not all(map(isfinite, (score.value, score.percentile, score.z_score, score.threshold))):
        raise ReportError(f"image {sop_instance_uid}: score, percentile and threshold must be finite")


def _check_verdict(result: StudyResult) -> None:
    scores = [image.score for image in result.images if image.score is not None]
    by_score = Verdict.ABOVE if any(score.above for score in scores) else Verdict.BELOW
    scored = result.verdict in (Verdict.ABOVE, Verdict.BELOW)
    decisive = result.decisive
    if scored and (
        decisive is None or not 0 <= decisive < len(result.images) or result.images[decisive].score is None
    ):
        raise ReportError(
            f"study {result.study_instance_uid}: {result.verdict} needs a scored image that decides"
        )
    if scored and result.verdict is not by_score:
        raise ReportError(
            f"study {result.study_instance_uid}: the result says {result.verdict}, its scores say {by_score}"
        )
    if not scored and decisive is not None:
        raise ReportError(
            f"study {result.study_instance_uid}: {result.verdict} has no image that decides, yet one is named"
        )
