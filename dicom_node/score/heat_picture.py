"""Draws an image and its heat map side by side, for people. Pure; gives the bytes of a PNG.

Owns colours and words of the picture. Knows nothing of how heat comes about beyond `saliency`.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dicom_node.domain.types import Provenance, Score
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import Saliency, resample

PANEL = 900
"""Longest side of each of the two pictures, pixels."""

LAYER = 640
"""Longest side of a heat map that is laid over its image, pixels."""

Colour = tuple[int, int, int]

NARROWEST = 600
"""Width of each from which the legend fits beneath; a narrower picture is centred in it."""

BANDS: tuple[tuple[float, Colour, float], ...] = (
    (99.0, (255, 224, 120), 0.32),
    (99.9, (255, 140, 40), 0.42),
)
"""From which heat (percent), in which colour, how opaque. Below is no colour: most of a normal has none."""

ABOVE: tuple[Colour, float] = ((226, 28, 40), 0.5)
"""Colour and opacity above the threshold; each colour is darker and stronger than the one before."""

OUTLINE = (64, 224, 255)
NOTICE = "RESEARCH, NOT FOR DIAGNOSIS"

_MARGIN, _TEXT, _SMALL, _LARGE = 20, 20, 17, 30
_PAPER, _INK, _WARNING = (24, 24, 24), (235, 235, 235), (255, 190, 90)

Colours = npt.NDArray[np.uint8]


def draw(grey: Grey, saliency: Saliency, score: Score, made_by: Provenance) -> bytes:
    """Return a PNG of what `compose` draws."""
    content = io.BytesIO()
    compose(grey, saliency, score, made_by).save(content, format="PNG")
    return content.getvalue()


def compose(
    grey: Grey, saliency: Saliency, score: Score, made_by: Provenance, widest: int | None = None
) -> Image.Image:
    """Return a picture in RGB: the image, the same under its heat map, a legend and what the score says.

    Parameters
    ----------
    grey
        (H, W) float32 in [0, 1], as scored.
    saliency
        Of that image.
    score, made_by
        Of that image.
    widest
        Pixels that the picture may be wide, at least 1260; None leaves it to its height.
    """
    panel = PANEL if widest is None else (widest - 3 * _MARGIN) // 2
    height, width = _fit(grey.shape[0], grey.shape[1], panel)
    plain = np.repeat(_grey8(grey, height, width)[:, :, None], 3, axis=2)
    coloured = Image.fromarray(overlay(plain, *_scaled(saliency, height, width)))
    if saliency.region is not None:
        scale = np.array([width / grey.shape[1], height / grey.shape[0]])
        corners = [tuple(point) for point in (saliency.region.outline * scale).tolist()]
        ImageDraw.Draw(coloured).line([*corners, *corners[:2]], fill=OUTLINE, width=3, joint="curve")
    cell = max(width, NARROWEST)
    whole = 2 * cell + 3 * _MARGIN
    lines = _wrapped(_sentences(saliency, score, made_by), whole - 2 * _MARGIN)
    top = 2 * _MARGIN + height
    sheet = Image.new("RGB", (whole, top + 44 + 28 * len(lines) + 44 + _MARGIN), _PAPER)
    for at, picture in enumerate((Image.fromarray(plain), coloured)):
        sheet.paste(picture, (_MARGIN + at * (cell + _MARGIN) + (cell - width) // 2, _MARGIN))
    pen = ImageDraw.Draw(sheet)
    _legend(pen, top, saliency)
    for at, line in enumerate(lines):
        pen.text((_MARGIN, top + 44 + 28 * at), line, fill=_INK, font=_font(_TEXT))
    pen.text((_MARGIN, top + 52 + 28 * len(lines)), NOTICE, fill=_WARNING, font=_font(_LARGE))
    return sheet


def overlay(picture: Colours, heat: npt.NDArray[np.float32], above: npt.NDArray[np.bool_]) -> Colours:
    """Return a picture (H, W, 3) under the colours of a heat map.

    Parameters
    ----------
    heat, above
        (H, W), see `Saliency`; NaN gets no colour.
    """
    out = picture.astype(np.float32)
    masks = [(heat >= low, colour, opacity) for low, colour, opacity in BANDS]
    for mask, colour, opacity in [*masks, (above, *ABOVE)]:  # each covers what the one before drew
        tint = opacity * np.array(colour, dtype=np.float32)
        out[mask] = (1.0 - opacity) * picture[mask].astype(np.float32) + tint
    return np.rint(out).astype(np.uint8)


def layer(saliency: Saliency, longest: int = LAYER) -> bytes:
    """Return the heat map alone as an RGBA PNG: a picture to lay over the image, in its proportions.

    Parameters
    ----------
    longest
        Pixels of its longer side at most.
    """
    height, width = saliency.heat.shape
    scale = min(1.0, longest / max(height, width))
    heat, above = _scaled(saliency, max(1, round(height * scale)), max(1, round(width * scale)))
    out = np.zeros((*heat.shape, 4), dtype=np.uint8)
    masks = [(heat >= low, colour, opacity) for low, colour, opacity in BANDS]
    for mask, colour, opacity in [*masks, (above, *ABOVE)]:
        # A page makes it fainter, and cannot make it stronger.
        out[mask] = (*colour, round(255 * min(1.0, 1.6 * opacity)))
    content = io.BytesIO()
    Image.fromarray(out).save(content, format="PNG", optimize=True)
    return content.getvalue()


def _scaled(
    saliency: Saliency, height: int, width: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    above = resample(saliency.above.astype(np.float32), height, width)
    return resample(saliency.heat, height, width), above > 0.5


def _sentences(saliency: Saliency, score: Score, made_by: Provenance) -> list[str]:
    place = "above" if score.above else "below"
    low, red = BANDS[0][0], 100.0 * saliency.false_positive_rate
    share = 100.0 * float((saliency.heat[~np.isnan(saliency.heat)] >= low).mean())
    what = (
        f"Score {score.value:.4g} (bank {made_by.bank_name}, {made_by.normal_images} normals): higher than "
        f"{score.percentile:.0f} % of the calibration normals, {place} the threshold {score.threshold:.4g}."
    )
    where = (
        f"Coloured here: {share:.1f} % of the image; in an average normal {100.0 - low:g} %. At most {red:g} % of the "
        f"held-out normals show any red; the highest peak exceeds that of {saliency.peak_percentile:.0f} % of them."
    )
    how = (
        f"Colours: {saliency.method}. They mark what is unusual for this bank, whatever the cause; the score is "
        "computed separately."
    )
    return [what, where, how]


def _legend(pen: ImageDraw.ImageDraw, top: int, saliency: Saliency) -> None:
    font, at = _font(_SMALL), _MARGIN
    never = f"than any place in {100.0 - 100.0 * saliency.false_positive_rate:g} % of normals"
    entries = [(f"farther than {low:g} % of places in normals", colour) for low, colour, _ in BANDS]
    for words, colour in [*entries, (f"farther {never}", ABOVE[0])]:
        pen.rectangle((at, top + 4, at + 20, top + 22), fill=colour)
        pen.text((at + 28, top + 3), words, fill=_INK, font=font)
        at += 28 + int(font.getlength(words)) + 22
    if saliency.region is not None:
        pen.rectangle((at, top + 4, at + 20, top + 22), outline=OUTLINE, width=3)
        pen.text((at + 28, top + 3), "largest red area", fill=_INK, font=font)


def _wrapped(sentences: list[str], width: int) -> list[str]:
    font, lines = _font(_TEXT), []
    for sentence in sentences:
        line = ""
        for word in sentence.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _fit(height: int, width: int, widest: int) -> tuple[int, int]:
    ratio = min(PANEL / max(height, width), widest / width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _grey8(grey: Grey, height: int, width: int) -> npt.NDArray[np.uint8]:
    picture = Image.fromarray(np.rint(255.0 * grey).astype(np.uint8))
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
