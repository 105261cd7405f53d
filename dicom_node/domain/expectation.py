"""What somebody said of a study that is coming, and what follows for when it counts as complete. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Source = Literal["ups", "mwl", "mpps", "ian", "count", "fetch"]
State = Literal["open", "complete", "arrived", "missed", "withdrawn"]
Judgement = Literal["close", "hold", "wait"]
Procedure = tuple[str, str, str]
"""Code value, coding scheme designator, code meaning (PS3.3 section 8.8)."""

MOST_REFERENCES = 2000
"""Images that one notice may name."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them. `refs` are SOP Instance UIDs; `until` ends what an open one holds up."""

    source: Source
    state: State
    refs: frozenset[str] = frozenset()
    until: datetime | None = None


def judge(notices: Iterable[Notice], held: Collection[str], now: datetime) -> Judgement:
    """Return whether a study is complete.

    "close": a notice names all its images, they are here, and no other says that more will come. "hold": one says so,
    or names images that are not here yet, and its time is not over. "wait": nobody knows; the quiet time decides.

    A notice holds up nothing without a time at which it ends, and nothing beyond it.
    """
    here = frozenset(held)
    told = [one for one in notices if one.state in ("open", "complete")]
    holds = any(
        one.until is not None and now < one.until and (one.state == "open" or not one.refs <= here)
        for one in told
    )
    if holds:
        return "hold"
    whole = any(one.state == "complete" and one.refs and one.refs <= here for one in told)
    return "close" if whole else "wait"
