from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from queue import Queue

import httpx
import pytest

from dicom_node.domain.errors import DatabaseError
from dicom_node.web.changes import Changes, TooManyListenersError
from tests.fake_desk import FakeDesk
from tests.reading_room import open_room


class History:
    """What `Desk.changes` looks at: the studies of events 1, 2, ...; counts how often it is looked at."""

    def __init__(self) -> None:
        self.studies: list[str] = []
        self.looks = 0
        self.away = False

    def __call__(self, after: int) -> tuple[int, Sequence[str]]:
        self.looks += 1
        if self.away:
            raise DatabaseError("away")
        last = len(self.studies)
        return (last, ()) if after < 0 else (last, tuple(dict.fromkeys(self.studies[after:])))


async def next_event(stream: AsyncIterator[str]) -> dict[str, object]:
    while True:
        told = await asyncio.wait_for(anext(stream), 10)
        if "data: " in told:
            return json.loads(told.partition("data: ")[2])


async def started(stream: AsyncIterator[str]) -> None:
    """Read until the history is watched: a listener's first heartbeat comes behind that."""
    while not (await asyncio.wait_for(anext(stream), 10)).startswith(":"):
        pass


def test_all_who_listen_are_told_and_one_look_serves_them() -> None:
    async def scene() -> None:
        history = History()
        changes = Changes(history, poll=0.01)
        streams = [changes.stream(heartbeat=0.001) for _ in range(20)]
        await asyncio.gather(*map(started, streams))
        before = history.looks
        history.studies += ["2.25.1", "", "2.25.1"]
        told = await asyncio.gather(*map(next_event, streams))
        assert told == [{"studies": ["2.25.1"], "all": False, "node": True}] * 20
        assert history.looks - before < 20
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        assert changes.listeners == 0

    asyncio.run(scene())


def test_one_who_comes_again_is_told_what_he_missed() -> None:
    async def scene() -> None:
        history = History()
        history.studies = ["2.25.1", "2.25.2"]
        changes = Changes(history, poll=0.01)
        assert (await next_event(changes.stream(after=1)))["studies"] == ["2.25.2"]

    asyncio.run(scene())


def test_who_comes_while_the_database_is_away_comes_again_and_misses_nothing() -> None:
    async def scene() -> None:
        history = History()
        history.studies = ["2.25.1", "2.25.2"]
        changes = Changes(history, poll=0.01)
        history.away = True
        stream = changes.stream(after=1, heartbeat=0.001)
        assert await anext(stream) == "retry: 3000\n\n"
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), 10)
        assert changes.listeners == 0
        history.away = False
        assert (await next_event(changes.stream(after=1)))["studies"] == ["2.25.2"]

    asyncio.run(scene())


def test_a_listener_is_told_later_of_what_happened_while_the_database_was_away() -> None:
    async def scene() -> None:
        history = History()
        stream = Changes(history, poll=0.01).stream(heartbeat=0.001)
        await started(stream)
        history.away = True
        history.studies += ["2.25.1"]
        looks = history.looks
        while history.looks < looks + 3:
            await anext(stream)
        history.away = False
        assert (await next_event(stream))["studies"] == ["2.25.1"]

    asyncio.run(scene())


def test_an_event_that_no_database_can_number_is_none_to_go_on_from() -> None:
    class Asked(FakeDesk):
        def changes(self, after: int) -> tuple[int, Sequence[str]]:
            asked.put(after)
            return super().changes(after)

    asked: Queue[int] = Queue()
    headers = {"Last-Event-ID": "9" * 20, "Cookie": "dicom-node=viewer"}
    with (
        open_room(Asked()) as address,
        httpx.stream("GET", f"{address}/api/v1/events", headers=headers, timeout=30) as answer,
    ):
        lines = answer.iter_lines()  # who lets go of them hangs up
        assert next(lines) == "retry: 3000"
        while (after := asked.get(timeout=30)) <= FakeDesk.event:
            pass
        assert after < 2**63


def test_no_more_listen_than_may_and_a_place_is_free_again_when_one_leaves() -> None:
    async def scene() -> None:
        changes = Changes(History(), poll=0.01, listeners=1)
        first = changes.stream()
        await anext(first)
        with pytest.raises(TooManyListenersError):
            changes.stream()
        await first.aclose()  # type: ignore[attr-defined]
        assert await anext(changes.stream()) == "retry: 3000\n\n"

    asyncio.run(scene())


def test_a_stream_ends_after_its_time_so_that_a_person_is_asked_again_who_he_is() -> None:
    async def scene() -> None:
        stream = Changes(History(), poll=0.01).stream(heartbeat=0.005, longest=0.02)
        told = [part async for part in stream]
        assert told[0] == "retry: 3000\n\n"
        assert set(told[1:]) <= {": still here\n\n"}

    asyncio.run(scene())


def test_closing_ends_every_stream() -> None:
    async def scene() -> None:
        changes = Changes(History(), poll=0.01)
        stream = changes.stream(heartbeat=0.001)
        await started(stream)
        await changes.close()
        assert [part async for part in stream if not part.startswith(":")] == []
        with pytest.raises(TooManyListenersError):
            changes.stream()

    asyncio.run(scene())
