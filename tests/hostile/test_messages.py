"""What no library sends, on an association and before it: each ends that connection, and nothing else.

Every case is met by the state machine, the fragments, the command or the request; pynetdicom 3.0 by itself hangs,
leaks or dies of several of them.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest

from tests.hostile import wire
from tests.hostile.conftest import Receiver
from tests.hostile.wire import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    CR,
    CR_CONTEXT,
    ECHO_CONTEXT,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    N_GET_RQ,
    SECOND_CR_CONTEXT,
    VERIFICATION,
    command,
    element,
    fragment,
    p_data,
    pdu,
    us,
)

STORE = command(C_STORE_RQ, instance="1.2.3.4", data_set=0)
ENDING = (7, None)


def _echo_with(more: bytes) -> bytes:
    return p_data(fragment(ECHO_CONTEXT, 3, command(C_ECHO_RQ, sop_class=VERIFICATION, more=more)))


ON_AN_ASSOCIATION: dict[str, bytes] = {
    "PDU type 0": pdu(0x00, b"1234"),
    "PDU type 8": pdu(0x08, b"1234"),
    "PDU type 255": pdu(0xFF, b""),
    "a PDU without fragments": pdu(4, b""),
    "a fragment of no length": pdu(4, struct.pack(">L", 0)),
    "a fragment of one byte": pdu(4, struct.pack(">LB", 1, CR_CONTEXT)),
    "a fragment that claims more than its PDU": pdu(4, struct.pack(">LBB", 4000, CR_CONTEXT, 3) + b"123"),
    "a fragment that claims 4 GB": pdu(4, struct.pack(">LBB", 0xFFFFFFFF, CR_CONTEXT, 3) + b"123"),
    "a PDU of thousands of fragments": p_data(*(fragment(CR_CONTEXT, 1, b"") for _ in range(5000))),
    "a PDU that is too long": pdu(4, bytes(140_000)),
    "a context that was not accepted": p_data(fragment(99, 3, STORE)),
    "an even context": p_data(fragment(2, 3, STORE)),
    "a data set without a command": p_data(fragment(CR_CONTEXT, 2, b"123456")),
    "a command within a data set": p_data(
        fragment(CR_CONTEXT, 3, STORE), fragment(CR_CONTEXT, 0, b"12"), fragment(CR_CONTEXT, 3, STORE)
    ),
    "fragments of two contexts": p_data(
        fragment(CR_CONTEXT, 1, STORE[:40]), fragment(SECOND_CR_CONTEXT, 3, STORE[40:])
    ),
    "data sets of two contexts": wire.store_command() + p_data(fragment(SECOND_CR_CONTEXT, 0, b"12")),
    "an empty command": p_data(fragment(CR_CONTEXT, 3)),
    "a command of noise": p_data(fragment(CR_CONTEXT, 3, bytes(range(251)))),
    "an endless command": b"".join(p_data(fragment(CR_CONTEXT, 1, bytes(1000))) for _ in range(20)),
    "a command element of 4 GB": p_data(fragment(CR_CONTEXT, 3, element(0, 2, CR.encode(), 0xFFFFFFFF))),
    "a command element that overlaps": p_data(fragment(CR_CONTEXT, 3, STORE[:-4])),
    "a command field of four bytes": p_data(fragment(CR_CONTEXT, 3, element(0, 0x100, bytes(4)))),
    "a command field of none": p_data(fragment(CR_CONTEXT, 3, element(0, 0x100, b""))),
    "a message ID of none": p_data(
        fragment(
            ECHO_CONTEXT, 3, command(C_ECHO_RQ, sop_class=VERIFICATION).replace(element(0, 0x110, us(1)), b"")
        )
    ),
    "a command twice in one": _echo_with(element(0, 0x100, us(C_ECHO_RQ))),
    "an element of another group": _echo_with(element(8, 0x18, b"1.2.3")),
    "a C-ECHO with a data set": p_data(
        fragment(ECHO_CONTEXT, 3, command(C_ECHO_RQ, sop_class=VERIFICATION, data_set=0))
    ),
    "a C-ECHO of a storage class": p_data(fragment(CR_CONTEXT, 3, command(C_ECHO_RQ))),
    "a C-STORE without a priority": p_data(
        fragment(CR_CONTEXT, 3, STORE.replace(element(0, 0x700, us(0)), b""))
    ),
    "a SOP instance UID of 400 characters": p_data(
        fragment(CR_CONTEXT, 3, command(C_STORE_RQ, instance="1." * 200, data_set=0)),
        fragment(CR_CONTEXT, 2, b"12"),
    ),
    "C-CANCEL": p_data(fragment(CR_CONTEXT, 3, command(C_CANCEL_RQ))) * 100,
    "C-FIND": p_data(fragment(CR_CONTEXT, 3, command(C_FIND_RQ, data_set=0))),
    "N-EVENT-REPORT": p_data(fragment(CR_CONTEXT, 3, command(N_EVENT_REPORT_RQ, instance="1.2"))) * 100,
    "N-GET": p_data(fragment(CR_CONTEXT, 3, command(N_GET_RQ))),
    "N-ACTION": p_data(fragment(CR_CONTEXT, 3, command(N_ACTION_RQ))),
    "a response that nobody asked for": p_data(fragment(CR_CONTEXT, 3, command(0x8001))),
    "a command that does not exist": p_data(fragment(CR_CONTEXT, 3, command(0x7777))),
    "a second association request": wire.request(),
    "an association accepted": pdu(2, wire.request()[6:]),
    "an association rejected": wire.REJECT,
    "a release response that nobody asked for": wire.RELEASE_RP,
    "a release of 100 kB": pdu(5, bytes(100_000)),
    "a release that claims 4 GB": pdu(5, b"", 0xFFFFFFFF),
    "an abort that claims 4 GB": pdu(7, b"", 0xFFFFFFFF),
    "a release of no length": pdu(5, b""),
    "two releases": wire.RELEASE_RQ * 2,
    "a release within a data set": wire.store_command() + wire.RELEASE_RQ,
    "a message after the release": wire.RELEASE_RQ + wire.echo() * 10,
    "an abort within a data set": wire.store_command()
    + p_data(fragment(CR_CONTEXT, 0, bytes(999)))
    + wire.ABORT,
    "TLS": bytes.fromhex("160301007b0100007703038f6b1c2e0d3f4a5b6c"),
}


@pytest.mark.parametrize("name", ON_AN_ASSOCIATION)
def test_an_association_ends_and_the_node_goes_on(name: str, receiver: Receiver) -> None:
    with wire.Wire(receiver.address, timeout=20) as peer:
        assert peer.associate()[0] == 2
        peer.send(ON_AN_ASSOCIATION[name])
        assert peer.end()[:1] in (b"", b"\x06", b"\x07"), (
            "aborted, released, or closed; never an answer at last"
        )
    wire.echo_once(receiver.address)
    assert receiver.settles(), f"{receiver.holds()} is left of {receiver.at_rest}, files {receiver.files()}"


def test_a_store_under_a_uid_that_is_no_text_is_refused(receiver: Receiver) -> None:
    content = command(C_STORE_RQ, data_set=0, more=element(0, 0x1000, b"\xff\xfe" * 8))
    with wire.Wire(receiver.address) as peer:
        peer.associate()
        peer.send(p_data(fragment(CR_CONTEXT, 3, content), fragment(CR_CONTEXT, 2, b"12")))
        assert peer.status() == 0xA900
    assert receiver.settles()


def _contexts(count: int) -> bytes:
    return b"".join(wire.context((2 * n + 1) % 256, CR) for n in range(count))


REQUESTS: dict[str, bytes] = {
    "another PDU first": wire.echo(),
    "a release first": wire.RELEASE_RQ,
    "an abort first": wire.ABORT,
    "a request of no length": pdu(1, b""),
    "a request of ten bytes": pdu(1, bytes(10)),
    "a request that claims 4 GB": pdu(1, bytes(100), 0xFFFFFFFF),
    "a request of zeros": pdu(1, bytes(2000)),
    "a request without items": pdu(1, wire.request()[6:74]),
    "no presentation context": wire.request(contexts=b""),
    "129 presentation contexts": wire.request(contexts=_contexts(129)),
    "a context twice": wire.request(contexts=wire.context(1, CR) * 2),
    "an even context": wire.request(contexts=wire.context(2, CR)),
    "a context without transfer syntax": wire.request(contexts=wire.context(1, CR, ())),
    "a context with a hundred transfer syntaxes": wire.request(contexts=wire.context(1, CR, ["1.2"] * 100)),
    "an abstract syntax that is no UID": wire.request(contexts=wire.context(1, "../../etc/passwd")),
    "an abstract syntax of 400 characters": wire.request(contexts=wire.context(1, "1." * 200)),
    "an item that claims more than there is": wire.request(contexts=wire.item(0x20, b"\1\0\0\0", 60_000)),
    "an item that is cut off": wire.request(more=b"\x20\0"),
    "an unknown item": wire.request(more=wire.item(0x99, b"12")),
    "two application contexts": wire.request(more=wire.item(0x10, b"1.2")),
    "two user informations": wire.request(more=wire.user_information()),
    "no user information": wire.request(information=b"\x10\0\0\0"),
    "a thousand role selections": wire.request(
        information=wire.user_information(*[wire.item(0x54, b"\0\x03" + b"1.2\1\1")] * 1000)
    ),
    "a maximum length of three bytes": wire.request(information=wire.item(0x50, wire.item(0x51, b"abc"))),
    "a peer that takes 7 bytes at a time": wire.request(information=wire.user_information(largest=7)),
    "two user identities": wire.request(
        information=wire.user_information(*[wire.item(0x58, b"\1\0\0\1a\0\0")] * 2)
    ),
    "an empty calling title": wire.request(calling=""),
    "a calling title with line breaks": wire.request(calling="A\nB\rC"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_is_none_is_answered_with_an_abort(name: str, receiver: Receiver) -> None:
    with wire.Wire(receiver.address, timeout=20) as peer:
        peer.send(REQUESTS[name])
        assert peer.end() == wire.ABORT
    assert receiver.settles()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (wire.request(version=2), (1, 2, 2)),
        (wire.request(application_context="1.2.3"), (1, 1, 2)),
    ],
    ids=["protocol version", "application context"],
)
def test_a_request_that_cannot_be_met_is_rejected_with_its_reason(
    request_: bytes, answer: tuple[int, int, int], receiver: Receiver
) -> None:
    with wire.Wire(receiver.address) as peer:
        assert tuple(peer.associate(request_)[7:]) == answer


HALVES: dict[str, tuple[bool, bytes]] = {
    "request": (False, wire.request()),
    "command": (True, p_data(fragment(CR_CONTEXT, 3, STORE))),
    "data set": (True, p_data(fragment(CR_CONTEXT, 0, bytes(10_000)))),
    "release": (True, wire.RELEASE_RQ),
    "abort": (True, wire.ABORT),
    "accept": (True, pdu(2, wire.request()[6:])),
    "reject": (True, wire.REJECT),
    "release response": (True, wire.RELEASE_RP),
}


@pytest.mark.parametrize("how", ["reset", "abort", "close"])
@pytest.mark.parametrize("name", HALVES)
def test_a_pdu_broken_in_the_middle_leaves_nothing(name: str, how: str, receiver: Receiver) -> None:
    associated, content = HALVES[name]
    for cut in sorted({1, 5, 6, 7, len(content) // 2, len(content) - 1}):
        with wire.Wire(receiver.address) as peer:
            if associated:
                assert peer.associate()[0] == 2
            if name == "data set":
                peer.send(wire.store_command())
            peer.send(content[:cut])
            if how == "reset":
                peer.reset()
            elif how == "abort":
                peer.send(wire.ABORT)
    wire.echo_once(receiver.address)
    assert receiver.settles(), f"{receiver.holds()} is left of {receiver.at_rest}, files {receiver.files()}"


def _tiny_fragments(peer: wire.Wire) -> None:
    peer.send(wire.store_command())
    while True:
        peer.send(p_data(fragment(CR_CONTEXT, 0, b"x")))
        peer.socket.settimeout(0.05)
        try:
            if not peer.socket.recv(100):
                return
        except TimeoutError:
            continue


def _within_a_pdu(peer: wire.Wire) -> None:
    peer.send(wire.store_command() + pdu(4, b"", 100_000))
    while True:
        peer.send(b"x")
        peer.socket.settimeout(0.05)
        try:
            if not peer.socket.recv(100):
                return
        except TimeoutError:
            continue


def _silence_within_a_message(peer: wire.Wire) -> None:
    peer.send(wire.store_command() + p_data(fragment(CR_CONTEXT, 0, bytes(1000))))
    peer.end()


@pytest.mark.parametrize(
    "drip",
    [_tiny_fragments, _within_a_pdu, _silence_within_a_message],
    ids=lambda drip: drip.__name__,
)
def test_a_peer_that_takes_for_ever_is_cut(drip: Callable[[wire.Wire], None], receiver: Receiver) -> None:
    with wire.Wire(receiver.address, "127.0.0.88") as peer:
        assert peer.associate()[0] == 2
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            drip(peer)  # comes back when the connection ends
    assert receiver.settles()


def test_a_peer_that_says_nothing_between_messages_is_cut(receiving: Callable[..., Receiver]) -> None:
    node = receiving(idle_timeout=0.5)
    with wire.Wire(node.address, timeout=10) as peer:
        assert peer.associate()[0] == 2
        peer.send(wire.echo())
        assert peer.status() == 0
        assert peer.end()[:1] == b"\x07"
    assert "nothing came" in node.lines("association aborted")[-1]["reason"]


def test_stores_in_a_row_without_waiting_are_each_answered(receiver: Receiver) -> None:
    with wire.Wire(receiver.address) as peer:
        peer.associate()
        for number in range(30):
            uid = f"1.2.3.77.{number}"
            peer.send(wire.store_command(uid) + p_data(fragment(CR_CONTEXT, 2, wire.data_set(uid, 1000))))
        assert [peer.status() for _ in range(30)] == [0] * 30


def test_two_messages_in_one_pdu_are_both_answered(receiver: Receiver) -> None:
    content = command(C_ECHO_RQ, sop_class=VERIFICATION)
    with wire.Wire(receiver.address) as peer:
        peer.associate()
        peer.send(p_data(fragment(ECHO_CONTEXT, 3, content), fragment(ECHO_CONTEXT, 3, content)))
        assert (peer.status(), peer.status()) == (0, 0)


def test_stores_in_a_row_that_break_off_leave_no_file(receiver: Receiver) -> None:
    with wire.Wire(receiver.address) as peer:
        peer.associate()
        for _ in range(50):
            peer.send(wire.store_command() + p_data(fragment(CR_CONTEXT, 2, bytes(1000))))
        peer.send(wire.store_command() + p_data(fragment(CR_CONTEXT, 0, bytes(1000))))
        peer.reset()
    assert receiver.settles()


def test_a_data_set_that_is_too_large_is_refused_and_an_endless_one_is_cut(
    receiving: Callable[..., Receiver],
) -> None:
    node = receiving(maximum_dataset_megabytes=1)
    chunk = p_data(fragment(CR_CONTEXT, 0, bytes(100_000)))
    with wire.Wire(node.address) as peer:
        peer.associate()
        peer.send(wire.store_command() + chunk * 11 + p_data(fragment(CR_CONTEXT, 2, b"12")))
        assert peer.status() == 0xA700
        assert node.files() == []
        peer.send(wire.echo())
        assert peer.status() == 0, "the association goes on"
        peer.send(wire.store_command())
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.send(chunk * 1000)
    assert node.settles()
    assert "goes on and on" in node.lines("association aborted")[-1]["reason"]
