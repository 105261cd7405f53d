from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from dicom_node.config import Receive
from dicom_node.domain.errors import DatabaseError, OutOfResourcesError
from dicom_node.receive.contexts import VERIFICATION
from dicom_node.receive.gate import A_ABORT
from dicom_node.receive.scp import Scp
from tests.peers import CR, write_image
from tests.unit.receive.conftest import rejection


def _wait_until_closed(address):
    for _ in range(500):
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the port stayed open")


def _dead(association):
    association.join(10)
    return not association.is_alive()


def test_an_echo_is_answered_and_needs_no_account(serve, keeper, associate):
    association = associate(serve(), classes=())
    assert association.send_c_echo().Status == 0x0000
    association.release()
    assert keeper.opened == []


def test_an_association_is_reported_before_its_first_store_and_after_its_last(
    serve, keeper, associate, tmp_path
):
    write_image(tmp_path / "a.dcm")
    association = associate(serve(), calling="CR1", called="NODE")
    for _ in range(2):
        association.send_c_store(tmp_path / "a.dcm")
    association.release()
    keeper.wait_for(lambda: keeper.ended)
    (facts,) = keeper.opened
    assert (facts.calling, facts.called, facts.peer_address) == ("CR1", "NODE", "127.0.0.1")
    assert keeper.ended == [(facts.id, "released")]
    assert keeper.order == ["opened", "store", "store", "ended"]


def test_associations_have_different_ids(serve, keeper, associate):
    scp = serve()
    associate(scp)
    associate(scp)
    keeper.wait_for(lambda: len({facts.id for facts in keeper.opened}) == 2)


@pytest.mark.parametrize("how", ["abort", "cable"])
def test_an_association_broken_in_mid_transfer_leaves_nothing(how, serve, keeper, associate, send_part):
    begun = threading.Event()
    keeper.admit = begun.set
    association = associate(serve(), classes=(CR,))
    send_part(association, bytes(2_000_000), 400)
    assert begun.wait(10)
    if how == "abort":
        association.abort()
    else:
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    keeper.wait_for(lambda: keeper.ended)
    assert keeper.ended == [(keeper.opened[0].id, "aborted")]
    assert list(keeper.incoming.iterdir()) == []
    assert keeper.received == []


def test_a_peer_that_stops_in_mid_pdu_is_dropped_after_the_timeout(serve, keeper, associate, send_part):
    association = associate(serve(network_timeout=0.5), classes=(CR,))
    send_part(association, bytes(100_000), 3)
    # a P-DATA header that promises 5000 bytes, and nothing after it
    keeper.wait_for(lambda: keeper.opened)
    association.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 5000))
    keeper.wait_for(lambda: keeper.ended)
    assert keeper.ended[0][1] == "aborted"
    assert list(keeper.incoming.iterdir()) == []


def test_an_idle_association_is_dropped_after_the_timeout(serve, keeper, associate):
    associate(serve(idle_timeout=0.3))
    keeper.wait_for(lambda: keeper.ended)
    assert keeper.ended[0][1] == "aborted"


def test_a_pdu_that_claims_gigabytes_closes_the_connection(serve):
    scp = serve()
    with socket.create_connection(scp.address, timeout=10) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0))
        assert peer.recv(20) == A_ABORT, "answered without waiting for the bytes"
        assert peer.recv(1) == b""


def test_an_account_that_cannot_be_kept_does_not_break_the_association(serve, keeper, associate, tmp_path):
    def away():
        raise DatabaseError("away")

    keeper.on_open = away
    write_image(tmp_path / "a.dcm")
    association = associate(serve())
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    keeper.on_open, keeper.on_end = (lambda: None), away
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    assert keeper.order == ["store", "opened", "store"], "the opening is told as soon as it can be"
    association.release()
    assert _dead(association)


def test_a_wrong_called_title_is_rejected_where_configured(serve, associate):
    strict = serve(require_called_ae_title=True)
    assert rejection(associate(strict, called="OTHER")) == (1, 1, 7)
    assert associate(strict, called="DICOMNODE").is_established
    assert associate(serve(), called="OTHER").is_established


def test_an_unknown_calling_title_is_rejected_even_for_an_echo(serve, keeper, associate):
    scp = serve(peers=[{"ae_title": "PACS"}])
    association = associate(scp, calling="OTHER", classes=())
    assert rejection(association) == (1, 1, 3)
    assert associate(scp, calling="PACS").is_established
    assert [facts.calling for facts in keeper.opened] == ["PACS"]


def test_a_known_title_from_elsewhere_is_rejected(serve, associate):
    scp = serve(peers=[{"ae_title": "PACS", "addresses": ["10.0.0.0/8"]}])
    assert rejection(associate(scp, calling="PACS")) == (1, 1, 3)


def test_one_association_too_many_is_rejected_for_now(serve, keeper, associate):
    scp = serve(max_associations=2)
    first, second = associate(scp), associate(scp)
    third = associate(scp)
    assert (first.is_established, second.is_established) == (True, True)
    assert rejection(third) == (2, 3, 2)
    first.release()
    keeper.wait_for(lambda: keeper.ended)
    # the place is free once the connection is forgotten, a moment after its end was told
    for _ in range(200):
        if associate(scp).is_established:
            return
        time.sleep(0.01)
    pytest.fail("the place of a released association was not given back")


def test_connections_that_say_nothing_do_not_use_up_associations(serve, associate):
    scp = serve(max_associations=2)
    silent = [socket.create_connection(scp.address) for _ in range(20)]
    assert associate(scp).is_established
    for connection in silent:
        connection.close()


def test_peers_with_unlimited_pdu_size_are_answered(serve, associate):
    association = associate(serve(), pdu=0)
    assert association.send_c_echo().Status == 0x0000


def test_the_announced_pdu_size_is_the_configured_one(serve, associate):
    assert associate(serve(maximum_pdu_size=65_536)).acceptor.maximum_length == 65_536


def test_stop_lets_a_running_store_finish(serve, keeper, associate, tmp_path):
    running, go_on = threading.Event(), threading.Event()

    def slow(_received):
        running.set()
        assert go_on.wait(10)

    keeper.before = slow
    write_image(tmp_path / "a.dcm")
    scp = serve()
    statuses = []
    association = associate(scp)
    store = threading.Thread(target=lambda: statuses.append(association.send_c_store(tmp_path / "a.dcm")))
    store.start()
    assert running.wait(10)
    address = scp.address
    stop = threading.Thread(target=scp.stop)
    stop.start()
    _wait_until_closed(address)
    assert stop.is_alive()
    go_on.set()
    store.join(10)
    stop.join(10)
    assert not stop.is_alive()
    assert [status.Status for status in statuses] == [0x0000]
    assert keeper.ended == [(keeper.opened[0].id, "aborted")]


def test_stop_does_not_wait_for_ever(serve, keeper, associate, send_part):
    begun = threading.Event()
    keeper.admit = begun.set
    scp = serve()
    send_part(associate(scp, classes=(CR,)), bytes(1_000_000), 20)
    assert begun.wait(10)
    scp.stop(drain_seconds=0.1)
    assert keeper.ended == [(keeper.opened[0].id, "aborted")]
    assert list(keeper.incoming.iterdir()) == []


def test_stop_closes_connections_that_say_nothing(serve):
    scp = serve()
    with socket.create_connection(scp.address, timeout=10) as silent:
        while not scp.connections():
            time.sleep(0.01)
        scp.stop()
        assert silent.recv(1) == b""


def test_the_same_port_can_be_used_again_at_once(serve, associate):
    scp = serve()
    _, port = scp.address
    associate(scp)
    scp.stop()
    again = serve(port=port)
    assert again.address[1] == port
    assert associate(again).send_c_echo().Status == 0x0000


def test_a_port_in_use_is_an_error_that_names_it(serve, keeper):
    _, port = serve().address
    with pytest.raises(OutOfResourcesError, match=f"127.0.0.1:{port}"):
        serve(port=port)


def test_as_a_context_it_listens_inside_only(keeper, associate):
    scp = Scp(
        Receive(port=0),
        incoming=keeper.incoming,
        ingest=keeper.ingest,
        admit=lambda: None,
        opened=keeper.note_opened,
        ended=keeper.note_ended,
        clock=lambda: None,
    )
    with scp:
        address = scp.address
        assert associate(scp, classes=()).send_c_echo().Status == 0x0000
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address)


def test_verification_is_the_standards_uid():
    assert VERIFICATION.uid == "1.2.840.10008.1.1"
