"""Which image decides a study, and what it is told when none was scored."""

from __future__ import annotations

from dicom_node.domain.types import ImageResult, Refusal, Score, Verdict
from dicom_node.pipeline.verdict import conclude


def _scored(uid: str, percentile: float, *, above: bool) -> ImageResult:
    return ImageResult("1.2", uid, "1.3", score=Score(percentile, percentile, 0.0, 50.0, above))


def _refused(uid: str, code: str, reason: str) -> ImageResult:
    return ImageResult("1.2", uid, "1.3", refusal=Refusal(code, reason))


def test_the_most_unusual_image_decides() -> None:
    result = conclude("1.9", 1, [_scored("1", 40, above=False), _scored("2", 99, above=True)])
    assert (result.verdict, result.decisive) == (Verdict.ABOVE, 1)


def test_a_refused_image_does_not_hide_a_scored_one() -> None:
    result = conclude("1.9", 1, [_refused("1", "decode", "broken"), _scored("2", 9, above=False)])
    assert (result.verdict, result.decisive) == (Verdict.BELOW, 1)


def test_of_equal_scores_the_first_decides() -> None:
    result = conclude("1.9", 1, [_scored("1", 9, above=False), _scored("2", 9, above=False)])
    assert result.decisive == 0


def test_refused_images_alone_are_not_analysed_and_each_reason_is_told_once() -> None:
    result = conclude("1.9", 1, [_refused("1", "view", "lateral"), _refused("2", "view", "lateral")])
    assert (result.verdict, result.reason, result.decisive) == (Verdict.NOT_ANALYSED, "lateral", None)


def test_an_image_that_cannot_be_decoded_makes_the_study_failed() -> None:
    result = conclude("1.9", 1, [_refused("1", "view", "lateral"), _refused("2", "decode", "truncated")])
    assert (result.verdict, result.reason) == (Verdict.FAILED, "lateral; truncated")
