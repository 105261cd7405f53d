"""Which reports a destination gets: what is stated must hold, all of it, and nothing else counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.routing import Facts, Route, takes

VERDICTS = ("above threshold", "below threshold", "not analysed", "failed")
ABOVE = Facts(frozenset({"CR"}), frozenset({"CR1"}), frozenset({"CHEST"}), "above threshold", 97.5)
FAILED = Facts(frozenset(), frozenset({"CR1"}), frozenset(), "failed", None)

_names = st.frozensets(st.sampled_from(("CR", "DX", "CHEST", "ABDOMEN", "CR1")), max_size=3)
_facts = st.builds(
    Facts,
    modalities=_names,
    calling_ae_titles=_names,
    body_parts=_names,
    verdict=st.sampled_from(VERDICTS),
    percentile=st.none() | st.floats(0, 100),
)
_routes = st.builds(
    Route,
    modalities=_names,
    calling_ae_titles=_names,
    body_parts=_names,
    verdicts=st.frozensets(st.sampled_from(VERDICTS), max_size=2),
    minimum_percentile=st.none() | st.floats(0, 100),
)
CONDITIONS = ("modalities", "calling_ae_titles", "body_parts", "verdicts", "minimum_percentile")


@given(_facts)
def test_without_a_condition_everything_is_taken(facts):
    assert takes(Route(), facts)


@given(_routes, _facts)
def test_a_route_takes_what_each_of_its_conditions_alone_takes(route, facts):
    alone = [replace(Route(), **{name: getattr(route, name)}) for name in CONDITIONS]
    assert takes(route, facts) == all(takes(one, facts) for one in alone)


@given(_routes, _facts, st.sampled_from(CONDITIONS))
def test_one_condition_less_never_takes_less(route, facts, name):
    wider = replace(route, **{name: getattr(Route(), name)})
    assert takes(wider, facts) >= takes(route, facts)


@given(_facts, st.floats(0, 100))
def test_a_report_without_a_score_meets_no_percentile(facts, least):
    taken = takes(Route(minimum_percentile=least), facts)
    assert taken == (facts.percentile is not None and facts.percentile >= least)


@pytest.mark.parametrize(
    ("route", "above", "failed"),
    [
        (Route(modalities=frozenset({"CR", "DX"})), True, False),
        (Route(modalities=frozenset({"DX"})), False, False),
        (Route(calling_ae_titles=frozenset({"CR1"})), True, True),
        (Route(body_parts=frozenset({"chest"})), True, False),
        (Route(verdicts=frozenset({"above threshold", "failed"})), True, True),
        (Route(verdicts=frozenset({"failed"})), False, True),
        (Route(minimum_percentile=97.5), True, False),
        (Route(minimum_percentile=97.6), False, False),
        (Route(verdicts=frozenset({"failed"}), minimum_percentile=1), False, False),
    ],
)
def test_what_is_above_and_what_has_failed_go_where_their_route_says(route, above, failed):
    assert (takes(route, ABOVE), takes(route, FAILED)) == (above, failed)
