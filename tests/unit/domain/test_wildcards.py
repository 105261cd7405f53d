"""Wild cards match as PS3.4 says, and in bounded time."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.wildcards import like


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True), ("*", "", True), ("?", "", False), ("doe*", "doe^jane", True), ("doe*", "roe", False),
        ("*jane", "doe^jane", True), ("d?e", "doe", True), ("d?e", "de", False), ("*a*b", "xaxxb", True),
        ("[a]", "a", False), ("**", "x", True), ("a*", "ba", False),
    ],
)  # fmt: skip
def test_wild_cards_match(pattern: str, text: str, matches: bool) -> None:
    assert like(pattern, text) is matches


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_it_agrees_with_the_shells_patterns(pattern: str, text: str) -> None:
    assert like(pattern, text) == fnmatchcase(text, pattern)


def test_a_pattern_that_a_regular_expression_would_never_finish_is_answered() -> None:
    assert not like("*a" * 120 + "*b", "a" * 2000)
