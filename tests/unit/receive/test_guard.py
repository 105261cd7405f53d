from __future__ import annotations

import pytest

from dicom_node.config import Peer
from dicom_node.receive.guard import Request, check_limit, check_titles


def _check(calling="PACS", called="NODE", address="10.1.2.3", *, require_called=False, peers=()):
    rejection = check_titles(
        Request(calling, called, address), own_ae_title="NODE", require_called=require_called, peers=peers
    )
    return None if rejection is None else (rejection.result, rejection.source, rejection.reason)


def test_without_rules_everyone_is_welcome():
    assert _check("ANYONE", "ANYTHING") is None


def test_a_wrong_called_title_is_permanent_and_reason_seven():
    assert _check(called="OTHER", require_called=True) == (1, 1, 7)
    assert _check(called="NODE", require_called=True) is None


def test_an_unknown_peer_is_permanent_and_reason_three():
    assert _check("OTHER", peers=[Peer(ae_title="PACS")]) == (1, 1, 3)
    assert _check("PACS", peers=[Peer(ae_title="PACS")]) is None


@pytest.mark.parametrize(
    ("address", "welcome"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("2001:db8::5", True),
    ],
)
def test_a_peer_with_addresses_calls_from_them_only(address, welcome):
    peers = [Peer(ae_title="PACS", addresses=("10.1.0.0/16", "2001:db8::/32"))]
    assert _check(address=address, peers=peers) == (None if welcome else (1, 1, 3))


def test_a_title_may_stand_twice_with_different_addresses():
    peers = [Peer(ae_title="PACS", addresses=("10.1.2.4",)), Peer(ae_title="PACS", addresses=("10.1.2.3",))]
    assert _check(peers=peers) is None


def test_a_full_node_rejects_for_now_with_local_limit_exceeded():
    assert check_limit(31, 32, stopping=False) is None
    rejection = check_limit(32, 32, stopping=False)
    assert (rejection.result, rejection.source, rejection.reason) == (2, 3, 2)


def test_a_stopping_node_rejects_for_now_with_temporary_congestion():
    rejection = check_limit(0, 32, stopping=True)
    assert (rejection.result, rejection.source, rejection.reason) == (2, 3, 1)
