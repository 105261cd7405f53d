"""What a report says in plain words, in the languages of ``texts.toml``. Pure but for reading that file once.

Owns the order of the statements: the percentile leads, the caution ends. Knows nothing of content items.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from math import floor
from typing import Any, cast

from pydicom.sr.coding import Code

from dicom_node.domain.types import Measurement, Provenance, Score, StudyResult, Verdict

ENGLISH = "en"
IN_ENGLISH = "In English: "
"""Opens the English sentences where others go before: renderers run both together in one paragraph."""


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the texts by language ("en", "de", ...)."""
    return tomllib.loads((files("dicom_node.report") / "texts.toml").read_text(encoding="utf-8"))


def language_code(language: str) -> Code:
    """Return a language's code of CID 5000."""
    texts = catalogue()[language]
    return Code(texts["code"], "RFC5646", texts["meaning"])


def sentence(result: StudyResult, language: str = ENGLISH) -> str:
    """Return the plain-language sentences that open the report.

    Only the English ones tell a refusal in detail: reasons name attributes and settings of this program. The others
    say what kind of reason it was.
    """
    texts = catalogue()[language]
    if result.decisive is None:
        template = texts["failed" if result.verdict is Verdict.FAILED else "not_analysed"]
        return _joined(template.format(reason=_reason(result, texts, language)), texts["caution"])
    image = result.images[result.decisive]
    score, made_by = cast("Score", image.score), cast("Provenance", image.provenance)
    total = len(result.images)
    left_out = total - sum(other.score is not None for other in result.images)
    whose = "".join(f"; {part}" for part in (made_by.population, made_by.site) if part)
    basis = texts["basis"].format(images=made_by.calibration_images)
    place = texts["above" if result.verdict is Verdict.ABOVE else "below"]
    said = [texts["scored"].format(share=_share(score, texts), basis=basis + whose, verdict=place)]
    if total > 1:
        said.append(texts["decides"].format(number=result.decisive + 1, images=total))
    if left_out:
        said.append(texts["not_scored"].format(number=left_out, images=total))
    said += [_beside(other, texts) for other in image.also]
    return _joined(*said, texts["caution"])


def percent(value: float, decimal: str = ".") -> str:
    """Return a percentile with at most one decimal, rounded down so that 99.97 does not become 100."""
    return f"{floor(value * 10 + 1e-9) / 10:g}".replace(".", decimal)


def _reason(result: StudyResult, texts: dict[str, Any], language: str) -> str:
    if language == ENGLISH:
        return result.reason.strip().rstrip(".") or str(texts["no_reason"])
    codes = dict.fromkeys(image.refusal.code for image in result.images if image.refusal is not None)
    reasons = texts["reasons"]
    told = dict.fromkeys(str(reasons.get(code, reasons["other"])) for code in codes)
    return "; ".join(told) or str(texts["no_reason"])


def _share(score: Score, texts: dict[str, Any]) -> str:
    if score.percentile >= 100:
        return str(texts["all"])
    return str(texts["percent"].format(number=percent(score.percentile, texts["decimal"])))


def _beside(other: Measurement, texts: dict[str, Any]) -> str:
    return str(
        texts["beside"].format(
            algorithm=other.provenance.algorithm,
            share=_share(other.score, texts),
            basis=texts["basis"].format(images=other.provenance.calibration_images),
            place=texts["place_above" if other.score.above else "place_below"],
        )
    )


def _joined(*sentences: str) -> str:
    return " ".join(sentences)
