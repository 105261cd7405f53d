"""From images to the study: which score decides, and what the answer is when there is none. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.domain.types import ImageResult, StudyResult, Verdict

UNDECODABLE = "decode"
LOST = "lost"
POISON = "poison"


def conclude(study_instance_uid: str, revision: int, images: Sequence[ImageResult]) -> StudyResult:
    """Return the study's result: the highest percentile decides, ties by z-score, then by order.

    Without a score the study is FAILED if an eligible image could not be decoded, was lost, or cost the
    process that decoded it, else NOT_ANALYSED; its
    reason joins the images' distinct reasons.
    """
    scored = [
        (image.score.percentile, image.score.z_score, -i)
        for i, image in enumerate(images)
        if image.score is not None
    ]
    if scored:
        decisive = -max(scored)[2]
        score = images[decisive].score
        above = score is not None and any(i.score is not None and i.score.above for i in images)
        return StudyResult(
            study_instance_uid,
            revision,
            Verdict.ABOVE if above else Verdict.BELOW,
            tuple(images),
            decisive=decisive,
        )
    refusals = [image.refusal for image in images if image.refusal is not None]
    failed = any(refusal.code in {UNDECODABLE, LOST, POISON} for refusal in refusals)
    return StudyResult(
        study_instance_uid,
        revision,
        Verdict.FAILED if failed else Verdict.NOT_ANALYSED,
        tuple(images),
        reason="; ".join(dict.fromkeys(refusal.reason for refusal in refusals)),
    )
