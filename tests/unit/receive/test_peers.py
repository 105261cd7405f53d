"""What the configuration says of peers, as they meet it on the wire."""

from __future__ import annotations

import time

import pytest

from dicom_node.config import Receive, load
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.sop_classes import STORAGE_CLASSES, STORAGE_COMMITMENT, VERIFICATION
from dicom_node.receive import guard
from tests.hostile import wire
from tests.peers import CR, write_image
from tests.unit.receive.conftest import rejection

DX = STORAGE_CLASSES[1].uid


def _accepted(association):
    return {str(context.abstract_syntax) for context in association.accepted_contexts}


def test_a_peer_gets_the_classes_it_may_send_and_verification(serve, associate, tmp_path):
    scp = serve(peers=[{"ae_title": "CR1", "sop_classes": ["CR"]}, {"ae_title": "PACS"}])
    limited = associate(scp, calling="CR1", classes=(CR, DX))
    assert _accepted(limited) == {CR, VERIFICATION.uid}
    assert {context.result for context in limited.rejected_contexts} == {3}
    write_image(tmp_path / "a.dcm")
    assert limited.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    assert _accepted(associate(scp, calling="PACS", classes=(CR, DX))) == {CR, DX, VERIFICATION.uid}


def test_a_store_of_a_class_that_a_peer_may_not_send_is_refused(serve, keeper, associate, send_command):
    association = associate(
        serve(peers=[{"ae_title": "CR1", "sop_classes": ["CR"]}]), calling="CR1", classes=(CR, DX)
    )
    assert send_command(association, DX, b"\x08\x00\x05\x00").Status == 0xA900
    assert keeper.received == []


def test_classes_are_named_by_group_name_or_uid():
    def classes(*names):
        peers = [{"ae_title": "CR1", "sop_classes": list(names)}]
        found = guard.classes_of(Receive.model_validate({"peers": peers}).peers[0])
        assert {VERIFICATION.uid, STORAGE_COMMITMENT.uid} <= found
        return found - {VERIFICATION.uid, STORAGE_COMMITMENT.uid}

    everything = {storage.uid for storage in STORAGE_CLASSES}
    assert classes("images") == classes() == everything
    assert classes("CR", "DX", "SC") == everything
    assert classes("Computed Radiography Image Storage") == classes(CR) == {CR}


def test_a_class_that_is_not_stored_here_is_a_fault_of_the_configuration():
    with pytest.raises(ConfigError, match=r"peers.*'CT' is no SOP class.*\"images\""):
        load(flags={"receive": {"peers": [{"ae_title": "CR1", "sop_classes": ["CT"]}]}})


def test_a_peer_with_a_limit_leaves_room_for_others(serve, keeper, associate):
    scp = serve(peers=[{"ae_title": "CR1", "max_associations": 1}, {"ae_title": "PACS"}])
    first = associate(scp, calling="CR1")
    assert rejection(associate(scp, calling="CR1")) == (2, 3, 2)
    assert associate(scp, calling="PACS").is_established
    first.release()
    keeper.wait_for(lambda: keeper.ended)
    for _ in range(200):
        if associate(scp, calling="CR1").is_established:
            return
        time.sleep(0.01)
    pytest.fail("the place of a released association was not given back")


def test_where_echo_is_open_a_stranger_may_verify_and_nothing_else(serve, keeper, associate):
    scp = serve(peers=[{"ae_title": "PACS", "addresses": ["10.0.0.5"]}], echo_open=True)
    stranger = associate(scp, calling="STRANGER", classes=(CR, DX))
    assert _accepted(stranger) == {VERIFICATION.uid}
    assert stranger.send_c_echo().Status == 0x0000
    assert keeper.opened == []


def test_where_echo_is_open_a_stranger_that_only_stores_is_rejected(serve):
    scp = serve(peers=[{"ae_title": "PACS"}], echo_open=True)
    with wire.Wire(scp.address) as stranger:
        assert tuple(stranger.associate(wire.request(contexts=wire.context(1, CR)))[7:]) == (1, 1, 3)


def test_an_address_that_is_not_allowed_is_rejected_before_its_title_counts(serve):
    scp = serve(allow_addresses=["127.0.0.2"])
    with wire.Wire(scp.address, "127.0.0.3") as elsewhere:
        assert tuple(elsewhere.associate()[7:]) == (1, 1, 3)
    with wire.Wire(scp.address, "127.0.0.2") as allowed:
        assert allowed.associate()[0] == 2


@pytest.mark.parametrize(
    ("settings", "networks"),
    [
        ({}, ()),
        ({"peers": [{"ae_title": "A", "addresses": ["10.0.0.1"]}, {"ae_title": "B"}]}, ()),
        ({"peers": [{"ae_title": "A", "addresses": ["10.0.0.1"]}]}, ("10.0.0.1",)),
        ({"peers": [{"ae_title": "A", "addresses": ["10.0.0.1"]}], "echo_open": True}, ()),
        (
            {"peers": [{"ae_title": "A", "addresses": ["10.0.0.1"]}], "allow_addresses": ["10.1.0.0/16"]},
            ("10.1.0.0/16", "10.0.0.1"),
        ),
    ],
)
def test_who_may_connect_at_all(settings, networks):
    assert guard.allowed_networks(Receive.model_validate(settings)) == networks


def test_one_address_has_its_share_of_associations(serve):
    scp = serve(max_connections_per_address=2)
    first, second = wire.Wire(scp.address, "127.0.0.2"), wire.Wire(scp.address, "127.0.0.2")
    with (
        first,
        second,
        wire.Wire(scp.address, "127.0.0.2") as third,
        wire.Wire(scp.address, "127.0.0.3") as other,
    ):
        assert first.associate()[0] == second.associate()[0] == 2
        assert tuple(third.associate()[7:]) == (2, 3, 2)
        assert other.associate()[0] == 2


def test_a_silent_connection_makes_way_for_one_that_speaks(serve):
    scp = serve(max_connections_per_address=2)
    silent = [wire.Wire(scp.address, "127.0.0.2") for _ in range(2)]
    time.sleep(1.1)  # within its first second no connection makes way
    with wire.Wire(scp.address, "127.0.0.2") as speaking:
        assert speaking.associate()[0] == 2
    assert silent[0].end() == b""
    for connection in silent:
        connection.socket.close()


def test_a_request_that_trickles_in_is_cut_when_its_time_is_up(serve):
    scp = serve(association_timeout=0.4)
    with wire.Wire(scp.address) as peer:
        assert _trickled(peer, wire.request()) < len(wire.request()), "cut before the last byte"
    assert scp.connections() == 0


def _trickled(peer, content):
    """Send byte by byte until the other side closes; return how many were sent."""
    for at in range(len(content)):
        try:
            peer.send(content[at : at + 1])
        except OSError:
            return at
        time.sleep(0.02)
    return len(content)
