"""Byte streams of whole associations, changed in lengths, types, identifiers and order, against a live receiver."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import service_streams
from tests.fuzz.mutations import Edit
from tests.hostile import services, wire
from tests.hostile.conftest import Receiver, offer, start, stop

GOOD_EVERY = 50
"""After so many hostile associations a good C-ECHO and C-STORE must be answered with Success."""


def storing(chance: Random, number: int) -> list[bytes]:
    """Return the PDUs of one who stores and asks for commitment."""
    content = wire.data_set(f"1.2.3.{number}", pixels=100)
    cut = chance.randrange(1, len(content))
    return [
        wire.request_with_commitment(),
        wire.echo(),
        wire.store_command(f"1.2.3.{number}"),
        wire.p_data(wire.fragment(wire.CR_CONTEXT, 0, content[:cut])),
        wire.p_data(wire.fragment(wire.CR_CONTEXT, 2, content[cut:])),
        wire.commitment(chance.choice((wire.N_ACTION_RQ, wire.N_EVENT_REPORT_RQ))),
        wire.commitment_data_set(f"1.2.3.{number}", f"2.25.{number}"),
        wire.RELEASE_RQ,
    ]


@dataclass(frozen=True)
class Target:
    """What a node offers, the good stream that is changed, and its first PDU."""

    begin: Callable[[Path], Receiver]
    pdus: Callable[[Random, int], list[bytes]]
    request: bytes


_MANY = {"max_connections_per_address": 1000, "max_associations": 200}
TARGETS = {
    "associations": Target(lambda folder: start(folder, **_MANY), storing, wire.request_with_commitment()),
    "services": Target(lambda folder: offer(folder, **_MANY), service_streams.asking, services.request()),
}


def stream(target: Target, chance: Random, number: int) -> bytes:
    """Return what a peer sends from its request to its release, with something wrong."""
    pdus = target.pdus(chance, number)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(pdus)) if chance.random() < 0.1 else chance.randrange(1, len(pdus))
        kind = chance.randrange(5)
        if kind == 0 and pdus[at]:
            pdus[at] = pdus[at][: chance.randrange(len(pdus[at]))]
        elif kind == 1:
            pdus.insert(at, pdus[chance.randrange(len(pdus))])
        elif kind == 2 and len(pdus) > 2:
            del pdus[at]
        elif pdus[at]:
            start_at = chance.randrange(min(len(pdus[at]), 120))
            bytes_in = chance.choice((b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", chance.randbytes(4)))
            edit = Edit(start_at, len(bytes_in), bytes_in)
            pdus[at] = pdus[at][: edit.at] + edit.inserted + pdus[at][edit.at + edit.removed :]
    return b"".join(pdus)


def fuzz_associations(target: Target, numbers: range, seed: int, out: Path) -> None:
    """Send streams to a receiver of its own process, and see that good peers are served. Outcomes go to ``counts``."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    outcomes: Counter[str] = Counter()
    receiver = target.begin(folder)
    try:
        for number in numbers:
            (out / "current").write_text(str(number), encoding="ascii")
            outcome = send(target, receiver, stream(target, Random(f"{seed}:{number}"), number))
            outcomes[outcome] += 1
            if "FINDING" in outcome:
                _keep(out, number, outcome)
            if number % GOOD_EVERY == 0 or number == numbers[-1]:
                wire.echo_once(receiver.address)
                wire.store_once(receiver.address, f"1.2.4.{number}")
                outcomes["good peers served"] += 1
        assert receiver.settles(), "threads, sockets or files are left"
        outcomes.update(f"FINDING in the log: {line}" for line in faults_told(receiver))
        stop(receiver)
    except (OSError, AssertionError) as error:
        outcomes[f"FINDING {type(error).__name__}: {error}"] += 1
        _keep(out, number, f"{type(error).__name__}: {error}")
    finally:
        receiver.process.kill()
        (out / "counts").write_text(json.dumps(outcomes), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)


def faults_told(receiver: Receiver) -> list[str]:
    """Return what the node's log tells of faults of its own, or of the library: hostile bytes must cause none."""
    told = [json.loads(line) for line in (receiver.folder / "log").read_text("utf-8").splitlines()]
    return [
        f"{line['logger']}: {line['message']}"
        for line in told
        if line["level"] in ("ERROR", "CRITICAL") or line["logger"].startswith("pynetdicom")
    ]


def _keep(out: Path, number: int, what: str) -> None:
    with (out / "findings.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": number, "what": what}) + "\n")


def send(target: Target, receiver: Receiver, content: bytes) -> str:
    """Send a stream and return what became of it."""
    with socket.create_connection(receiver.address, 30) as peer:
        with contextlib.suppress(OSError):
            if content.startswith(target.request):  # a peer waits for its A-ASSOCIATE-AC
                peer.sendall(target.request)
                peer.recv(65536)
                content = content[len(target.request) :]
            peer.sendall(content)
            peer.shutdown(socket.SHUT_WR)
        answered = b""
        try:
            while piece := peer.recv(65536):
                answered += piece
        except ConnectionError:
            return "reset"
        except TimeoutError:
            return "FINDING: still open after 30 s"
    return f"answered, first by PDU type {answered[0]}" if answered else "closed without an answer"
