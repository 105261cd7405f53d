"""Values as people read them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dicom_node.domain import urgency

_DELIVERED = {
    "committed": ("there", "committed by the destination"),
    "found": ("there", "found at the destination"),
    "done": ("there", "told"),
    "sent": ("there", "sent; the destination was not asked"),
    "sent, unconfirmed": ("sent", "sent; the destination does not confirm"),
    "sent, waiting for confirmation": ("sent", "sent; its confirmation is awaited"),
    "waiting": ("waiting", "not sent yet"),
    "failed": ("failed", "could not be sent"),
    "canceled": ("canceled", "canceled"),
}


_AS_WRITTEN = {"uid": "UID", "sop": "SOP", "ae": "AE"}


def when(moment: datetime | None) -> str:
    """Return a moment in UTC to the minute, as the log and the audit trail have it; "" for none."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def iso(moment: datetime | None) -> str:
    """Return a moment for a program."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def lasting(seconds: float | None) -> str:
    """Return a duration in the largest unit that leaves at least 1; "" for none."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def unusual(percentile: float | None) -> str:
    """Return what a percentile means."""
    if percentile is None:
        return "not scored"
    if percentile >= 100.0:
        return "more unusual than all of the normals"
    if percentile <= 0.0:
        return "more unusual than none of the normals"
    return f"more unusual than {percentile:.3g} of 100 normals"


def number(value: float | None) -> str:
    """Return three or four digits that count; "" for none."""
    return "" if value is None else f"{value:.4g}"


def size(count: int) -> str:
    """Return a number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def delivery(state: str) -> tuple[str, str]:
    """Return a delivery's state as one word and as a sentence."""
    return _DELIVERED.get(state, (state, state))


def value(anything: Any) -> str:
    """Return a cell of a table."""
    if isinstance(anything, datetime):
        return when(anything)
    if anything is None:
        return ""
    if isinstance(anything, dict):
        return ", ".join(f"{key} {value(one)}" for key, one in anything.items() if one not in (None, ""))
    if isinstance(anything, list | tuple):
        return ", ".join(value(one) for one in anything)
    return str(anything)


def heading(name: str) -> str:
    """Return the head of a column: a field's name in words, abbreviations as the standard writes them."""
    return " ".join(_AS_WRITTEN.get(word, word) for word in name.split("_"))


def stated(moment: str) -> str:
    """Return a moment that stands somewhere as text (ISO 8601) as `when`; what is none as it is."""
    try:
        return when(datetime.fromisoformat(moment))
    except ValueError:
        return moment


FILTERS: dict[str, Callable[..., Any]] = {
    "when": when,
    "iso": iso,
    "lasting": lasting,
    "unusual": unusual,
    "number": number,
    "size": size,
    "delivery": delivery,
    "value": value,
    "heading": heading,
    "stated": stated,
    "priority": urgency.name,
}
"""Of the templates."""
