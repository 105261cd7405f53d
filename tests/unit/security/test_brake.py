"""Who fails often waits longer each time."""

from __future__ import annotations

import pytest

from dicom_node.security.brake import FREE_FAILURES, bucket, neighbourhood, wait


def test_the_first_failures_cost_nothing_and_each_after_that_twice_as_much_up_to_the_bound():
    waits = [wait(FREE_FAILURES + more, 0.0, 60.0) for more in range(8)]
    assert waits == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert wait(10**6, 0.0, 60.0) == 60.0


def test_the_wait_passes_and_a_clock_that_was_set_back_makes_it_no_longer():
    assert wait(FREE_FAILURES + 2, 3.0, 60.0) == 1.0
    assert wait(FREE_FAILURES + 2, 4.5, 60.0) <= 0.0
    assert wait(FREE_FAILURES + 2, -3600.0, 60.0) == 4.0


def test_a_name_is_counted_in_one_of_few_places():
    assert len({bucket(f"name {number}") for number in range(300_000)}) <= 65_536
    assert bucket("anna") == bucket("anna") != bucket("bert")


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_a_network_that_one_machine_has_to_itself_is_one_address(address, counted_as):
    assert neighbourhood(address) == counted_as
