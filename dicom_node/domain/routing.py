"""Which reports a destination gets: conditions, and whether a study meets them. Standard library only; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """Conditions that a report must meet, all that are stated; an empty one is none.

    Attributes
    ----------
    modalities, calling_ae_titles, body_parts
        At least one image of the study has one of these. Body parts are compared without regard to case.
    verdicts
        The report's verdict is one of these.
    minimum_percentile
        The highest percentile of an image that was scored is at least this; a report without a score does not meet it.
    """

    modalities: frozenset[str] = frozenset()
    calling_ae_titles: frozenset[str] = frozenset()
    body_parts: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()
    minimum_percentile: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a study and its report decides where it goes. `percentile` is None where nothing was scored."""

    modalities: frozenset[str]
    calling_ae_titles: frozenset[str]
    body_parts: frozenset[str]
    verdict: str
    percentile: float | None


def takes(route: Route, facts: Facts) -> bool:
    """Return whether a report meets every condition that is stated."""
    return (
        _met(route.modalities, facts.modalities)
        and _met(route.calling_ae_titles, facts.calling_ae_titles)
        and _met(_upper(route.body_parts), _upper(facts.body_parts))
        and _met(route.verdicts, frozenset({facts.verdict}))
        and (
            route.minimum_percentile is None
            or (facts.percentile is not None and facts.percentile >= route.minimum_percentile)
        )
    )


def _met(wanted: frozenset[str], seen: frozenset[str]) -> bool:
    return not wanted or not wanted.isdisjoint(seen)


def _upper(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.upper() for value in values)
