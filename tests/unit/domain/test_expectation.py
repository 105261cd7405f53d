from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.domain.expectation import Notice, judge

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON, PAST = NOW + timedelta(minutes=5), NOW - timedelta(seconds=1)
HELD = {"1", "2"}


def complete(*refs: str, until: datetime | None = SOON) -> Notice:
    return Notice("mpps", "complete", frozenset(refs), until)


@pytest.mark.parametrize(
    ("notices", "follows"),
    [
        ([], "wait"),
        ([complete("1", "2")], "close"),
        ([complete("1")], "close"),
        ([complete("1", "3")], "hold"),
        ([complete("1", "3", until=PAST)], "wait"),
        ([complete("1", "3", until=None)], "wait"),
        ([complete()], "wait"),
        ([Notice("ups", "open", until=SOON)], "hold"),
        ([Notice("ups", "open", until=PAST)], "wait"),
        ([Notice("mwl", "open")], "wait"),
        ([complete("1", "2"), Notice("count", "open", until=SOON)], "hold"),
        ([complete("1", "2"), Notice("count", "open", until=PAST)], "close"),
        ([complete("1", "2"), Notice("mpps", "withdrawn", until=SOON)], "close"),
        ([Notice("mwl", "arrived"), Notice("mwl", "missed")], "wait"),
    ],
)
def test_what_is_said_of_a_study_and_what_is_here_decide(notices: list[Notice], follows: str) -> None:
    assert judge(notices, HELD, NOW) == follows


def test_no_notice_holds_a_study_beyond_its_time() -> None:
    notices = [
        complete("9", until=SOON),
        Notice("ups", "open", until=SOON),
        Notice("count", "open", until=SOON),
    ]
    assert judge(notices, HELD, SOON) != "hold"
