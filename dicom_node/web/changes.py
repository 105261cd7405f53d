"""Tells listeners what changed, as server-sent events: one look at the history serves them all.

While somebody listens, the history is looked at every second; otherwise not at all. Listeners, what waits for each, and
how long one stream lasts are bounded: an EventSource comes again by itself, and is asked again who it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from dicom_node.domain.errors import NodeError

log = logging.getLogger(__name__)

Look = Callable[[int], tuple[int, Sequence[str]]]

LISTENERS = 100
WAITING = 50
POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 600.0
_MOST_STUDIES = 200
_LOOKS = 5


class TooManyListenersError(Exception):
    """As many listen as may."""


class Changes:
    """Shares one look among all who listen. Lives in one event loop.

    Parameters
    ----------
    look
        `Desk.changes`; called in a thread.
    """

    def __init__(self, look: Look, *, poll: float = POLL_SECONDS, listeners: int = LISTENERS) -> None:
        self._look = look
        self._poll = poll
        self._most = listeners
        self._listeners: set[asyncio.Queue[tuple[int, Sequence[str]] | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._last = -1
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def stream(
        self,
        after: int | None = None,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        longest: float = LONGEST_SECONDS,
    ) -> AsyncIterator[str]:
        """Return the events as text, from now or from behind one that the listener had before.

        Raises
        ------
        TooManyListenersError
            If as many listen as may.
        """
        if self._closed or len(self._listeners) >= self._most:
            raise TooManyListenersError
        queue: asyncio.Queue[tuple[int, Sequence[str]] | None] = asyncio.Queue(WAITING)
        self._listeners.add(queue)
        return self._events(queue, after, heartbeat, longest)

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        for queue in list(self._listeners):
            self._drop(queue)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _events(
        self,
        queue: asyncio.Queue[tuple[int, Sequence[str]] | None],
        after: int | None,
        heartbeat: float,
        longest: float,
    ) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        until = loop.time() + longest
        try:
            yield "retry: 3000\n\n"
            try:
                await self._start()
                async for change in self._missed(after):
                    yield change
            except NodeError as error:  # who cannot be told what he missed comes again and asks for it
                _not_now(error)
                return
            while (left := until - loop.time()) > 0:
                try:
                    found = await asyncio.wait_for(queue.get(), min(heartbeat, left))
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if found is None:
                    return
                yield _event(*found)
        finally:
            self._listeners.discard(queue)

    async def _start(self) -> None:
        """Have the history watched from where it is now. What comes later is in every listener's queue."""
        async with self._starting:
            if self._task is None or self._task.done():
                self._last, _ = await run_in_threadpool(self._look, -1)
                self._task = asyncio.create_task(self._watch())

    async def _missed(self, after: int | None) -> AsyncIterator[str]:
        """Yield what came behind an event until now; where that is much, that everything changed."""
        for _ in range(_LOOKS):
            if after is None or after < 0:
                return
            found = await run_in_threadpool(self._look, after)
            if found[0] <= after:
                return
            after = found[0]
            if found[1]:
                yield _event(*found)
        yield _event(self._last, (), everything=True)

    async def _watch(self) -> None:
        while self._listeners:
            await asyncio.sleep(self._poll)
            try:
                found = await run_in_threadpool(self._look, self._last)
            except NodeError as error:
                _not_now(error)
                continue
            if found[0] == self._last:
                continue
            self._last = found[0]
            if found[1]:
                for queue in list(self._listeners):
                    self._give(queue, found)

    def _give(
        self, queue: asyncio.Queue[tuple[int, Sequence[str]] | None], change: tuple[int, Sequence[str]]
    ) -> None:
        try:
            queue.put_nowait(change)
        except asyncio.QueueFull:  # it does not read; it will come again and ask for what it missed
            self._drop(queue)

    def _drop(self, queue: asyncio.Queue[tuple[int, Sequence[str]] | None]) -> None:
        self._listeners.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


def _not_now(error: NodeError) -> None:
    log.warning("nobody can be told of changes now", extra={"reason": str(error)})


def _event(number: int, studies: Sequence[str], *, everything: bool = False) -> str:
    """Return one event: which studies changed, "all" where they are too many, "node" where one is about the node."""
    named = [study for study in studies if study]
    told = {
        "studies": named[:_MOST_STUDIES],
        "all": everything or len(named) > _MOST_STUDIES,
        "node": len(named) < len(studies),
    }
    return f"id: {number}\nevent: changes\ndata: {json.dumps(told, separators=(',', ':'))}\n\n"
