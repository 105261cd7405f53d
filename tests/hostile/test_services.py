"""Hostile requests to the services of procedure steps and notices: each is refused or ends its connection, alone.

Whatever is sent, a good C-ECHO and C-STORE are answered and nothing is left over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.hostile import services, wire
from tests.hostile.conftest import Receiver
from tests.hostile.services import (
    CONTEXT_OF,
    ELEMENTS,
    EVENT,
    IAN,
    MPPS,
    PULL,
    PUSH,
    QUERY,
    REQUESTS,
    WATCH,
    of,
)

NAMES = {PUSH: "push", WATCH: "watch", PULL: "pull", EVENT: "event", QUERY: "query", MPPS: "mpps", IAN: "ian"}
SERVED = [(sop_class, field) for sop_class, fields in REQUESTS.items() for field in fields]
LIKE_NO_UID = (
    b"../../etc/passwd",
    b"1." * 200,
    b"1..2",
    b"\xff\xfe" * 8,
    b"",
    b"\0" * 64,
    b"*",
    b"1.2.3\\1.2.4",
)


@contextlib.contextmanager
def associated(node: Receiver) -> Iterator[wire.Wire]:
    with wire.Wire(node.address, timeout=20) as peer:
        assert peer.associate(services.request())[0] == 2
        yield peer


def serves(node: Receiver, peer: wire.Wire | None = None) -> None:
    """See that the association goes on, if there is one, that good peers are served, and that nothing is left."""
    if peer is not None:
        peer.send(wire.echo())
        assert peer.status() == 0
        peer.socket.close()
    wire.echo_once(node.address)
    assert node.settles(), f"{node.holds()} is left of {node.at_rest}, files {node.files()}"


def ends(node: Receiver, sent: bytes) -> None:
    """See that an association is aborted, never answered."""
    with associated(node) as peer:
        peer.send(sent)
        answered = peer.end()
    assert answered[:1] == b"\x07", f"{sent[:60]!r} was answered with {answered[:60]!r}"


def name_of(value: object) -> str | None:
    return NAMES.get(value) if isinstance(value, str) else f"0x{value:04X}" if isinstance(value, int) else None


def a_data_set(sop_class: str, field: int) -> bytes:
    """Return what would follow that command."""
    if field in (services.C_CANCEL, services.N_GET):
        return b""
    fitting = {
        services.N_CREATE: {MPPS: services.performed(), IAN: services.available()}.get(
            sop_class, services.step()
        ),
        services.N_SET: services.performed(state="COMPLETED"),
        services.N_ACTION: services.subscription(),
        services.N_EVENT_REPORT: of(ProcedureStepState="SCHEDULED"),
        services.C_FIND: of(ProcedureStepState="", PatientName=""),
    }
    return services.data(sop_class, services.encoded(fitting[field]))


def no_data_set(field: int) -> int:
    return wire.NO_DATA_SET if field in (services.C_CANCEL, services.N_GET) else 0


@pytest.mark.parametrize("sop_class", CONTEXT_OF, ids=NAMES.get)
def test_a_request_that_a_class_does_not_have_ends_the_association(sop_class: str, offering: Receiver) -> None:
    for field in set(ELEMENTS) - set(REQUESTS[sop_class]):
        ends(offering, services.command(field, sop_class, data_set=no_data_set(field)))
    store = wire.command(wire.C_STORE_RQ, sop_class=sop_class, instance="1.2.3", data_set=0)
    ends(offering, wire.p_data(wire.fragment(CONTEXT_OF[sop_class], 3, store)))
    for response in (0x8100, 0x8110, 0x8120, 0x8130, 0x8140, 0x8020):
        changed = {0x100: wire.us(response)}
        ends(offering, services.command(services.N_EVENT_REPORT, sop_class, changed=changed))
    serves(offering)


@pytest.mark.parametrize(("sop_class", "field"), SERVED, ids=name_of)
def test_a_command_that_breaks_its_form_ends_the_association(
    sop_class: str, field: int, offering: Receiver
) -> None:
    ending = no_data_set(field)
    needed = [n for n in ELEMENTS[field] if not (field == services.N_CREATE and n == 0x1000)]
    for missing in needed:
        ends(offering, services.command(field, sop_class, data_set=ending, leave_out=missing))
    for number in {0x100, 0x110, 0x120, 0x700, 0x800, 0x1002, 0x1008} & set(ELEMENTS[field]):
        for wrong in (b"", b"\1\0\0\0"):
            ends(offering, services.command(field, sop_class, changed={number: wrong}, data_set=ending))
    twice = wire.element(0, 0x100, wire.us(field))
    ends(offering, services.command(field, sop_class, data_set=ending, more=twice))
    ends(offering, services.command(field, sop_class, data_set=ending, more=wire.element(8, 0x18, b"1.2.3")))
    if field != services.C_CANCEL:
        ends(offering, services.command(field, sop_class, names=wire.CR, data_set=ending))
    if ending:
        ends(offering, services.command(field, sop_class, data_set=0))
    serves(offering)


@pytest.mark.parametrize("sop_class", CONTEXT_OF, ids=NAMES.get)
def test_fragments_out_of_order_end_the_association(sop_class: str, offering: Receiver) -> None:
    field = REQUESTS[sop_class][0]
    whole = services.command(field, sop_class, data_set=no_data_set(field))
    other = next(uid for uid in CONTEXT_OF if uid != sop_class)
    ends(offering, services.data(sop_class, b"123456"))
    ends(offering, wire.p_data(wire.fragment(CONTEXT_OF[sop_class], 1)) + services.data(sop_class, b"123456"))
    if field != services.N_GET:
        ends(offering, whole + services.data(other, b"123456"))
        ends(offering, whole + whole)
    ends(offering, wire.p_data(*(wire.fragment(CONTEXT_OF[sop_class], 1, bytes(100)) for _ in range(200))))
    serves(offering)


def a_deep_sequence(depth: int) -> bytes:
    """Return sequences of undefined length within each other, none of them closed."""
    return (wire.element(0x40, 0x4018, b"", 0xFFFFFFFF) + wire.element(0xFFFE, 0xE000, b"", 0xFFFFFFFF)) * depth


DATA_SETS = {
    "none": b"",
    "noise": bytes(range(256)) * 40,
    "an element of 4 GB": wire.element(0x40, 0x4018, b"12", 0xFFFFFFF0),
    "sequences 20 000 deep": a_deep_sequence(20_000),
    "thousands of elements": b"".join(wire.element(0x11, n, b"x" * 8) for n in range(0x10, 0x7000)),
    "thousands of items": wire.element(0x40, 0x4018, wire.element(0xFFFE, 0xE000, b"") * 40_000),
    "a character set of none": wire.element(8, 5, b"KLINGON\\ISO 2022 IR 87")
    + wire.element(0x10, 0x10, b"\x1b$B\xff"),
    "a text of 400 kB": wire.element(0x74, 0x1204, b"x" * 400_000),
    "more than 512 kB": wire.element(0x74, 0x1204, b"x" * 700_000),
    "numbers of no number": wire.element(0x28, 0x10, b"abc") + wire.element(0x20, 0x13, b"1e999"),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_that_makes_no_sense_is_refused_and_the_association_goes_on(
    name: str, offering: Receiver
) -> None:
    for sop_class, field in SERVED:
        if no_data_set(field):
            continue
        with associated(offering) as peer:
            sent = services.command(field, sop_class, "1.2.3.404")
            peer.send(sent + services.data(sop_class, DATA_SETS[name]))
            status = services.final_status(peer)
            if field not in (services.C_FIND, services.N_EVENT_REPORT):  # of these nothing need be read
                assert status not in (0, None), f"{NAMES[sop_class]} 0x{field:04X}"
            assert status is not None
            peer.send(wire.echo())
            assert peer.status() == 0
    serves(offering)


@pytest.mark.parametrize("sop_class", CONTEXT_OF, ids=NAMES.get)
def test_a_data_set_without_an_end_is_cut(sop_class: str, offering: Receiver) -> None:
    field = next(one for one in REQUESTS[sop_class] if not no_data_set(one))
    piece = wire.p_data(wire.fragment(CONTEXT_OF[sop_class], 0, bytes(16_000)))
    with associated(offering) as peer:
        peer.send(services.command(field, sop_class))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.send(piece * 2000)
    serves(offering)


@pytest.mark.parametrize(("sop_class", "field"), SERVED, ids=name_of)
def test_a_uid_that_is_none_is_refused(sop_class: str, field: int, offering: Receiver) -> None:
    numbers = {0x1000, 0x1001} & set(ELEMENTS[field])
    for uid in LIKE_NO_UID if numbers else ():
        with associated(offering) as peer:
            changed = dict.fromkeys(numbers, uid)
            sent = services.command(field, sop_class, changed=changed, data_set=no_data_set(field))
            peer.send(sent + a_data_set(sop_class, field))
            answer = services.final_status(peer)
        made_here = (sop_class, field) == (PUSH, services.N_CREATE) and not uid.strip(b"\0")
        assert (answer == 0) == made_here, f"{uid!r}"
    serves(offering)


def test_types_of_action_and_event_that_do_not_exist_are_refused(offering: Receiver) -> None:
    with associated(offering) as peer:
        peer.send(services.create("1.2.3.5"))
        assert peer.status() == 0
        for sop_class in (PUSH, WATCH, PULL):
            for kind in (0, 6, 65_535):
                peer.send(services.act(kind, "1.2.3.5", services.subscription(), sop_class))
                assert services.final_status(peer) == 0x0123
        for kind in (0, 6, 65_535):
            peer.send(services.command(services.N_EVENT_REPORT, EVENT, changed={0x1002: wire.us(kind)}))
            peer.send(a_data_set(EVENT, services.N_EVENT_REPORT))
            assert services.final_status(peer) == 0x0113
        serves(offering, peer)


def test_a_list_of_thousands_of_attributes_is_answered(offering: Receiver) -> None:
    with associated(offering) as peer:
        peer.send(services.create("1.2.3.6"))
        assert peer.status() == 0
        for tags in (b"\x10\0\x10\0" * 1900, b"\x10\0\x10", b"", bytes(range(252))):
            more = wire.element(0, 0x1005, tags)
            sent = services.command(services.N_GET, PULL, "1.2.3.6", data_set=wire.NO_DATA_SET, more=more)
            peer.send(sent)
            if services.final_status(peer) is None:  # a list that is cut off breaks the command's form
                assert len(tags) % 4
                break
    with associated(offering) as peer:
        keys = b"".join(wire.element(0x10, n, b"*" * 40) for n in range(0x10, 0x2000))
        peer.send(services.command(services.C_FIND, QUERY) + services.data(QUERY, keys))
        assert services.final_status(peer) is not None
        keys = services.encoded(of(PatientName="*?" * 30_000, PatientID="*" * 60_000))
        peer.send(services.command(services.C_FIND, QUERY) + services.data(QUERY, keys))
        assert services.final_status(peer) is not None
        serves(offering, peer)


def test_a_notice_of_thousands_of_images_is_refused(offering: Receiver) -> None:
    content = services.encoded(services.available(images=[f"1.2.3.4.{n}" for n in range(3000)]))
    with associated(offering) as peer:
        peer.send(services.command(services.N_CREATE, IAN, "1.2.3.7") + services.data(IAN, content))
        assert peer.status() == 0x0213
        serves(offering, peer)


def test_cancels_of_no_query_are_left_unanswered(offering: Receiver) -> None:
    cancel = services.command(services.C_CANCEL, QUERY, data_set=wire.NO_DATA_SET)
    numbered = [
        cancel.replace(wire.element(0, 0x120, wire.us(1)), wire.element(0, 0x120, wire.us(n)))
        for n in range(500)
    ]
    with associated(offering) as peer:
        peer.send(b"".join(numbered))
        serves(offering, peer)


@pytest.mark.parametrize("how", ["reset", "abort", "close"])
@pytest.mark.parametrize(("sop_class", "field"), SERVED, ids=name_of)
def test_a_request_broken_in_the_middle_leaves_nothing(
    sop_class: str, field: int, how: str, offering: Receiver
) -> None:
    head = services.command(field, sop_class, "1.2.3.8", data_set=no_data_set(field))
    content = head + a_data_set(sop_class, field)
    for cut in sorted({7, len(head) // 2, len(head), (len(head) + len(content)) // 2, len(content)}):
        with associated(offering) as peer:
            peer.send(content[:cut])
            if how == "reset":
                peer.reset()
            elif how == "abort":
                peer.send(wire.ABORT)
    serves(offering)
    assert not list((offering.folder / "store").rglob("step-*")), "staged data sets of steps are left"


def test_a_peer_that_is_not_known_has_no_service(offering: Receiver) -> None:
    with wire.Wire(offering.address) as peer:
        stranger = services.request().replace(b"MANAGER ", b"STRANGER")
        assert peer.associate(stranger)[0] == 3


def test_nobody_knows_a_service_that_is_switched_off(receiver: Receiver) -> None:
    with wire.Wire(receiver.address) as peer:
        assert peer.associate(services.request())[0] == 2
        peer.send(
            services.command(services.N_CREATE, PUSH) + services.data(PUSH, services.encoded(services.step()))
        )
        assert peer.end()[:1] == b"\x07"
    assert receiver.settles()
