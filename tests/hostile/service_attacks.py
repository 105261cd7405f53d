"""What a known peer, or one who stole its title, may do to the services of procedure steps and notices: floods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.hostile import services, wire
from tests.hostile.attacks import Address, Attack
from tests.hostile.services import IAN, MPPS, PUSH, of

AT_ONCE = 4
SUBSCRIPTIONS = 1000
"""As many as come through in twenty seconds; in longer runs all."""


def _again_and_again(
    address: Address, source: str, seconds: float, once: Callable[[wire.Wire, int], None]
) -> None:
    """Do something on one association after another, on some at once."""
    deadline = time.monotonic() + seconds

    def one(worker: int) -> None:
        number = worker
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), wire.Wire(address, source, 5) as peer:
                if peer.associate(services.request())[:1] != b"\x02":
                    time.sleep(0.05)
                    continue
                while time.monotonic() < deadline:
                    once(peer, number)
                    number += AT_ONCE

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE)))


def steps(address: Address, source: str, seconds: float) -> None:
    """Create steps, each of another study."""

    def once(peer: wire.Wire, number: int) -> None:
        peer.send(services.create(f"2.25.7{number}", f"1.2.7.{number}"))
        if services.final_status(peer) is None:
            raise ConnectionAbortedError

    _again_and_again(address, source, seconds, once)


def large_steps(address: Address, source: str, seconds: float) -> None:
    """Create steps of 400 kB, and send performed steps and notices of too much, reading no answer."""
    text = services.encoded(services.step(CommentsOnTheScheduledProcedureStep="x" * 400_000))

    def once(peer: wire.Wire, number: int) -> None:
        for sop_class in (PUSH, MPPS, IAN):
            peer.send(services.command(services.N_CREATE, sop_class, f"2.25.8{number}"))
            peer.send(services.data(sop_class, text + bytes(1000 * (number % 200))))

    _again_and_again(address, source, seconds, once)


def subscriptions(address: Address, source: str, seconds: float) -> None:
    """Create some steps, then subscribe to all of them a thousand times, and to each; nobody takes the events."""
    deadline = time.monotonic() + max(20.0, seconds)
    with contextlib.suppress(OSError), wire.Wire(address, source, 30) as peer:
        peer.associate(services.request())
        for number in range(100):
            peer.send(services.create(f"2.25.9{number}", f"1.2.9.{number}"))
            services.final_status(peer)
        for number in range(SUBSCRIPTIONS):
            if time.monotonic() > deadline:
                return
            uid = services.GLOBAL if number % 2 else f"2.25.9{number % 100}"
            peer.send(services.act(3, uid, services.subscription()))
            if services.final_status(peer) is None:
                return


def queries(address: Address, source: str, seconds: float) -> None:
    """Ask for every step again and again, read nothing, cancel nothing, and break off."""
    every = services.find(of(PatientName="*", ScheduledWorkitemCodeSequence=[], InputInformationSequence=[]))
    _again_and_again(address, source, seconds, lambda peer, _number: peer.send(every * 5))


SERVICE_ATTACKS: dict[str, Attack] = {
    "steps created": steps,
    "steps of 400 kB": large_steps,
    f"{SUBSCRIPTIONS} subscriptions": subscriptions,
    "queries, no answer read": queries,
}
