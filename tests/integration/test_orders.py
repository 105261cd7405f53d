"""What a person orders for many items and reports at once, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from dicom_node.domain.errors import DestinationRefusedError, NodeError
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Kind, Verdict
from dicom_node.pipeline import admin
from dicom_node.pipeline.orders import Orders, counts, find_items
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from dicom_node.store.selection import Wanted
from tests.integration.test_pipeline import Site
from tests.integration.test_rerun import answered, small


class Noted:
    """An audit trail that remembers which studies something was done for, and how that ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    @contextmanager
    def __call__(self, study: str) -> Iterator[None]:
        try:
            yield
        except NodeError as error:
            self.heard.append((study, type(error).__name__))
            raise
        self.heard.append((study, ""))


def refusing_vna(destination: Destination) -> int:
    if destination.name == "vna":
        raise DestinationRefusedError("vna refuses")
    return 0


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    """A site with two studies, delivered to the PACS and refused by the VNA."""
    site = Site(engine, tmp_path / "store")
    site.peer.answer = refusing_vna
    for seed in (1, 2):
        answered(site, small(seed))
    site.peer.answer = lambda _destination: 0
    return site


def studies(site: Site) -> list[str]:
    return [item.study_instance_uid for item in site.items(Kind.ANALYSE)]


def became(rows: list[dict[str, Any]]) -> list[str]:
    return [row["became"] for row in rows]


def test_what_failed_at_one_destination_is_retried_and_nothing_else(site: Site) -> None:
    chosen = find_items(site.engine, [State.FAILED], destination="vna")
    assert find_items(site.engine, [State.FAILED], destination="pacs") == []
    assert became(Orders(site.engine, site.clock).retry(chosen)) == ["scheduled", "scheduled"]
    before = len(site.peer.kept)
    site.work()
    assert [name for name, _ in site.peer.kept[before:]] == ["vna", "vna"]
    assert {item.state for item in site.items(Kind.DELIVER)} == {State.COMPLETED}


def test_items_are_meant_by_state_kind_study_and_the_time_of_their_last_change(site: Site) -> None:
    first, second = studies(site)
    done, failed = [State.COMPLETED], [State.FAILED]
    assert len(find_items(site.engine, done)) == 4
    assert len(find_items(site.engine, done, kind=Kind.DELIVER)) == 2
    (item,) = find_items(site.engine, failed, study_instance_uid=second)
    assert [i.study_instance_uid for i in site.items(Kind.DELIVER) if i.id == item] == [second]
    assert find_items(site.engine, failed, until=site.clock()) != find_items(site.engine, failed)
    changed = [
        i.id for i in site.items(Kind.DELIVER) if i.study_instance_uid == first and i.state is State.FAILED
    ]
    assert find_items(site.engine, failed, until=site.clock()) == changed
    assert find_items(site.engine, failed, since=site.clock()) == [item]


def test_one_that_cannot_be_done_is_told_and_holds_up_no_other(site: Site) -> None:
    heard = Noted()
    (_, second) = find_items(site.engine, [State.FAILED])
    (completed, *_) = find_items(site.engine, [State.COMPLETED])
    rows = Orders(site.engine, site.clock, heard).cancel([4040, completed, second])
    assert became(rows) == ["refused", "refused", "canceled"]
    assert rows[0]["reason"] == "there is no work item 4040"
    assert "COMPLETED" in rows[1]["reason"]
    assert heard.heard == [(studies(site)[0], "IllegalTransitionError"), (studies(site)[1], "")]


def test_a_dry_run_of_every_order_changes_nothing_and_is_no_event_of_the_audit_trail(site: Site) -> None:
    heard = Noted()
    dry = Orders(site.engine, site.clock, heard, dry_run=True)
    before = (site.items(Kind.ANALYSE), site.items(Kind.DELIVER), site.events())
    failed = find_items(site.engine, [State.FAILED])
    assert became(dry.retry(failed)) == ["scheduled", "scheduled"]
    assert became(dry.cancel(failed)) == ["canceled", "canceled"]
    assert became(dry.rerun(studies(site))) == ["scheduled", "scheduled"]
    assert became(dry.deliver("archive")) == ["scheduled", "scheduled"]
    assert (site.items(Kind.ANALYSE), site.items(Kind.DELIVER), site.events()) == before
    assert heard.heard == []


def test_a_new_destination_is_given_the_earlier_reports_once_and_no_phantoms(site: Site) -> None:
    answered(site, small(3), calling=SELFTEST_AE_TITLE)
    site.destinations["archive"] = Destination("archive", "ARCHIVE", "127.0.0.1", 105)
    orders = Orders(site.engine, site.clock)
    assert became(orders.deliver("archive")) == ["scheduled", "scheduled"]
    assert became(orders.deliver("archive")) == ["waiting", "waiting"]
    site.work()
    sent = [content for name, content in site.peer.kept if name == "archive"]
    assert sent == [content for name, content in site.peer.kept if name == "pacs"]
    assert became(orders.deliver("archive")) == ["sent", "sent"]
    assert became(orders.deliver("vna")) == ["waiting", "waiting"]


def test_earlier_reports_are_chosen_by_their_time_verdict_and_whether_they_are_superseded(site: Site) -> None:
    first, second = studies(site)
    site.clock.forward(60)
    orders = Orders(site.engine, site.clock, dry_run=True)
    Orders(site.engine, site.clock).rerun([first])
    site.work()
    meant = [(row["study_instance_uid"], row["revision"]) for row in orders.deliver("archive")]
    assert meant == [(first, 1), (second, 1), (first, 2)]
    meant = [(row["study_instance_uid"], row["revision"]) for row in orders.deliver("archive", newest=True)]
    assert meant == [(second, 1), (first, 2)]
    assert [row["revision"] for row in orders.deliver("archive", since=site.clock())] == [2]
    assert orders.deliver("archive", verdict=Verdict.ABOVE) == []


def test_counts_tell_how_many_became_what(site: Site) -> None:
    rows = Orders(site.engine, site.clock, dry_run=True).retry(find_items(site.engine, [State.FAILED]))
    assert counts(rows, "destination", "state", "became") == [
        {"destination": "vna", "state": "FAILED", "became": "scheduled", "number": 2}
    ]
    assert counts([], "became") == []


def test_the_list_is_narrowed_by_verdict_and_by_what_is_left_to_do(site: Site) -> None:
    first, second = studies(site)
    Orders(site.engine, site.clock).retry(find_items(site.engine, [State.FAILED], study_instance_uid=first))

    def listed(**conditions: Any) -> set[str]:
        return {row["study_instance_uid"] for row in admin.list_studies(site.engine, 10, Wanted(**conditions))}

    assert listed() == listed(verdict=Verdict.BELOW) == listed(destination="vna") == {first, second}
    assert listed(states=(State.FAILED,)) == listed(states=(State.FAILED,), destination="vna") == {second}
    assert listed(verdict=Verdict.ABOVE) == listed(destination="pacs") == set()


def test_where_every_report_is_stands_in_what_is_shown_of_a_study(site: Site) -> None:
    first, _ = studies(site)

    def states() -> dict[str, str]:
        rows = admin.show_study(site.engine, first)["destinations"]
        return {row["destination"]: row["state"] for row in rows}

    assert states() == {"pacs": "sent", "vna": "failed"}
    failed = find_items(site.engine, [State.FAILED], study_instance_uid=first)
    orders = Orders(site.engine, site.clock)
    orders.retry(failed)
    assert states() == {"pacs": "sent", "vna": "waiting"}
    orders.cancel(failed)
    assert states() == {"pacs": "sent", "vna": "canceled"}
