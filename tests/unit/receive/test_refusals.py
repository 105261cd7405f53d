from __future__ import annotations

import logging

import pytest

from dicom_node.receive.refusals import WINDOW, RefusalLog


class Seconds:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Seconds()


@pytest.fixture
def refusals(clock, caplog):
    caplog.set_level(logging.WARNING)
    return RefusalLog(clock)


def test_a_refusal_is_one_line_with_address_and_reason(refusals, caplog):
    assert refusals.note("connection refused", "10.0.0.1", "no request")
    (record,) = caplog.records
    assert (record.message, record.peer_address, record.reason) == (
        "connection refused",
        "10.0.0.1",
        "no request",
    )


def test_a_scanner_gets_few_lines_and_a_count_of_the_rest(refusals, clock, caplog):
    logged = sum(refusals.note("connection refused", "10.0.0.1", "no request") for _ in range(1000))
    assert logged == len(caplog.records) == 10
    clock.now = WINDOW + 1
    refusals.tick()
    assert caplog.records[-1].count == 990
    assert caplog.records[-1].by_address == {"10.0.0.1": 990}
    assert refusals.note("connection refused", "10.0.0.1", "no request"), "a new window has lines again"


def test_one_address_does_not_use_up_the_lines_of_another(refusals):
    for _ in range(1000):
        refusals.note("connection refused", "10.0.0.1", "no request")
    assert refusals.note("connection refused", "10.0.0.2", "no request")


def test_many_addresses_together_are_limited_too(refusals, clock, caplog):
    for number in range(5000):
        refusals.note("connection refused", f"10.0.{number // 250}.{number % 250}", "no request")
    assert len(caplog.records) == 100
    clock.now = WINDOW + 1
    refusals.tick()
    assert caplog.records[-1].count == 4900
    assert len(caplog.records[-1].by_address) <= 101


def test_at_the_end_what_was_left_out_is_told(refusals, caplog):
    for _ in range(15):
        refusals.note("connection refused", "10.0.0.1", "no request")
    refusals.close()
    assert caplog.records[-1].count == 5
