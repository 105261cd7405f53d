from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.receive.arrival import no_request
from dicom_node.receive.command import MalformedCommandError
from dicom_node.receive.command import parse as parse_command
from dicom_node.receive.request import LARGEST_REQUEST, MalformedRequestError, parse
from tests.hostile import wire

GOOD = wire.request(calling="CR1", called="NODE")
STORE = wire.command(wire.C_STORE_RQ, instance="1.2.3", data_set=0)


def _outcome(read, content):
    """Return what was read, or the reason why it was not; any other error is a fault."""
    try:
        return read(content)
    except (MalformedRequestError, MalformedCommandError) as error:
        return str(error)


def test_a_request_says_who_calls_whom_for_what():
    said = parse(GOOD)
    assert (said.calling, said.called, said.protocol_version) == ("CR1", "NODE", 1)
    assert said.application_context == wire.APPLICATION_CONTEXT
    assert said.proposes == {wire.VERIFICATION, wire.CR}


def test_the_largest_request_that_the_standard_allows_is_read():
    contexts = b"".join(wire.context(2 * n + 1, f"1.2.{n}", ["1.2." + "3" * 58] * 16) for n in range(128))
    request = wire.request(contexts=contexts)
    assert len(request) < LARGEST_REQUEST
    assert len(parse(request).proposes) == 128


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_byte_gives_a_request_or_a_reason(at, value):
    changed = bytearray(GOOD)
    changed[at] = value
    assert _outcome(parse, bytes(changed))


@given(st.binary(max_size=400))
def test_noise_is_no_request(noise):
    with pytest.raises(MalformedRequestError):
        parse(b"\x01\0" + len(noise).to_bytes(4, "big") + noise)


def test_the_first_bytes_tell_what_is_no_request():
    assert "0x47" in str(no_request(bytearray(b"GET / HTTP/1.1")))
    assert "4294967280" in str(no_request(bytearray(wire.pdu(1, b"", 0xFFFFFFF0))))
    assert no_request(bytearray(GOOD[:1])) is None
    assert no_request(bytearray(GOOD)) is None


def test_a_command_says_what_it_is_and_whether_a_data_set_follows():
    store, echo = parse_command(STORE), parse_command(wire.command(wire.C_ECHO_RQ, sop_class=wire.VERIFICATION))
    assert (store.field, store.has_data_set) == (wire.C_STORE_RQ, True)
    assert (echo.field, echo.has_data_set) == (wire.C_ECHO_RQ, False)


@pytest.mark.parametrize("field", [0x0010, 0x0021, 0x0150, 0x8001])
def test_other_services_are_named_in_the_reason(field):
    with pytest.raises(MalformedCommandError, match=f"0x{field:04X}.*only C-STORE, C-ECHO and"):
        parse_command(wire.command(field))


@given(st.integers(0, len(STORE) - 1), st.integers(0, 255))
def test_one_changed_byte_gives_a_command_or_a_reason(at, value):
    changed = bytearray(STORE)
    changed[at] = value
    assert _outcome(parse_command, bytes(changed))


@given(st.binary(max_size=200))
def test_noise_is_no_command(noise):
    with pytest.raises(MalformedCommandError):
        parse_command(noise)
