from __future__ import annotations

import socket
import threading
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity

from dicom_node.deliver import scu
from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.errors import CannotUnderstandError, DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Destination
from tests.peers import CR, free_port, write_image

SR = "1.2.840.10008.5.1.4.1.1.88.34"
TITLE = {"calling_ae_title": "NODE", "timeout": 5.0}


def _to(address, ae_title="SINK"):
    return Destination("pacs", ae_title, *address)


@pytest.fixture
def sink(tmp_path):
    with StorageSink(tmp_path / "sink") as running:
        yield running


@pytest.fixture
def archive():
    """Start an SCP as strict as asked; yields a function that returns its address."""
    entities = []

    def start(contexts=((SR, [ExplicitVRLittleEndian]),), handlers=(), called=False, calling=(), limit=10):
        entity = ApplicationEntity("ARCHIVE")
        for sop_class, syntaxes in contexts:
            entity.add_supported_context(sop_class, syntaxes)
        entity.require_called_aet = called
        entity.require_calling_aet = list(calling)
        entity.maximum_associations = limit
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
        entities.append(entity)
        return server.server_address

    yield start
    for entity in entities:
        entity.shutdown()


def _report(tmp_path, syntax=ExplicitVRLittleEndian, uid="1.2.3.4", **elements):
    path = tmp_path / "report.dcm"
    data_set = write_image(path, syntax, sop_class=SR, sop_instance_uid=uid, **elements)
    return path.read_bytes(), data_set


def _data_set(content):
    meta_length = int.from_bytes(content[140:144], "little")
    return content[144 + meta_length :]


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLosslessSV1]
)
def test_an_object_arrives_byte_for_byte_where_its_syntax_is_accepted(syntax, sink, tmp_path):
    content, data_set = _report(tmp_path, syntax, PatientName="山田^太郎")
    delivery = scu.send(_to(sink.address), content, **TITLE)
    assert (delivery.destination, delivery.sop_instance_uid, delivery.status) == ("pacs", "1.2.3.4", 0)
    (kept,) = sink.files
    assert kept.name == "1.2.3.4.dcm"
    assert dcmread(kept).file_meta.TransferSyntaxUID == syntax
    assert _data_set(kept.read_bytes()) == data_set


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_an_object_is_encoded_again_where_only_implicit_is_accepted(own, archive, tmp_path):
    taken = []

    def take(event):
        taken.append((event.context.transfer_syntax, event.dataset))
        return 0

    address = archive([(SR, [ImplicitVRLittleEndian])], [(evt.EVT_C_STORE, take)])
    content, _ = _report(tmp_path, own, PatientName="山田^太郎", StudyDescription="Иванов")
    assert scu.send(_to(address), content, **TITLE).status == 0
    ((syntax, data_set),) = taken
    assert syntax == ImplicitVRLittleEndian
    assert str(data_set.PatientName) == "山田^太郎"
    assert data_set == dcmread(BytesIO(content))


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007])
def test_a_status_that_means_stored_is_a_delivery(status, archive, tmp_path):
    address = archive(handlers=[(evt.EVT_C_STORE, lambda _event: status)])
    assert scu.send(_to(address), _report(tmp_path)[0], **TITLE).status == status


@pytest.mark.parametrize(
    ("status", "error", "name"),
    [
        (0xA700, DestinationAwayError, "out of resources"),
        (0x0110, DestinationAwayError, "processing failure"),
        (0xA900, DestinationRefusedError, "does not match SOP class"),
        (0xC001, DestinationRefusedError, "cannot understand"),
        (0x0122, DestinationRefusedError, "SOP class not supported"),
    ],
)
def test_a_failure_names_destination_status_and_meaning(status, error, name, sink, tmp_path):
    sink._respond = lambda _uid: status
    with pytest.raises(error, match=rf"pacs \(SINK at .*0x{status:04X} \(.*{name}.*1\.2\.3\.4"):
        scu.send(_to(sink.address), _report(tmp_path)[0], **TITLE)
    assert sink.files == []


@pytest.mark.parametrize(("status", "outcome"), [(0xB000, "stored"), (0xA702, "away")])
def test_the_peers_own_comment_stays_out_of_deliveries_and_messages(status, outcome, archive, tmp_path):
    def answer(_event):
        elements = Dataset()
        elements.Status = status
        elements.ErrorComment = "changed Secret^Name"
        return elements

    address = archive(handlers=[(evt.EVT_C_STORE, answer)])
    if outcome == "stored":
        assert scu.send(_to(address), _report(tmp_path)[0], **TITLE).comment == "stored, data elements coerced"
    else:
        with pytest.raises(DestinationAwayError) as away:
            scu.send(_to(address), _report(tmp_path)[0], **TITLE)
        assert "Secret" not in str(away.value)


def test_no_listener_means_away(tmp_path):
    port = free_port()
    with pytest.raises(DestinationAwayError, match=f"127.0.0.1:{port}"):
        scu.send(_to(("127.0.0.1", port)), _report(tmp_path)[0], **TITLE)


def test_a_host_that_does_not_exist_means_away(tmp_path):
    with pytest.raises(DestinationAwayError, match="check the host"):
        scu.send(_to(("no-such-host.invalid", 104)), _report(tmp_path)[0], **TITLE)


def test_a_peer_that_never_answers_means_away_after_the_timeout(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DestinationAwayError, match=r"within 0\.3 s"),
    ):
        scu.send(_to(silent.getsockname()), _report(tmp_path)[0], calling_ae_title="NODE", timeout=0.3)


def test_a_peer_that_stops_reading_means_away_after_the_timeout(archive, tmp_path):
    blocked, go_on = threading.Event(), threading.Event()

    def stop_reading(_event):
        blocked.set()
        go_on.wait(10)

    address = archive(handlers=[(evt.EVT_DATA_RECV, stop_reading)])
    try:
        with pytest.raises(DestinationAwayError):
            scu.send(_to(address), _report(tmp_path)[0], calling_ae_title="NODE", timeout=0.5)
        assert blocked.is_set()
    finally:
        go_on.set()


def test_a_peer_that_blocks_a_large_object_means_away(archive, tmp_path):
    go_on = threading.Event()
    received = []

    def stop_reading(event):
        received.append(len(event.data))
        if len(received) == 3:  # the association is open and the object has begun
            go_on.wait(20)

    address = archive([(CR, [ExplicitVRLittleEndian])], [(evt.EVT_DATA_RECV, stop_reading)])
    write_image(tmp_path / "big.dcm", size=(4000, 4000), sop_instance_uid="1.2.3")
    try:
        with pytest.raises(DestinationAwayError):
            scu.send(_to(address), (tmp_path / "big.dcm").read_bytes(), calling_ae_title="NODE", timeout=0.5)
        assert len(received) == 3
    finally:
        go_on.set()


def test_a_peer_that_aborts_means_away(archive, tmp_path):
    def abort(event):
        event.assoc.abort()
        return 0

    address = archive(handlers=[(evt.EVT_C_STORE, abort)])
    with pytest.raises(DestinationAwayError, match="aborted"):
        scu.send(_to(address), _report(tmp_path)[0], **TITLE)


def test_a_title_that_is_not_recognised_means_away_and_says_whose(archive, tmp_path):
    with pytest.raises(DestinationAwayError, match="called AE title not recognised"):
        scu.send(_to(archive(called=True), "WRONG"), _report(tmp_path)[0], **TITLE)
    with pytest.raises(DestinationAwayError, match=r"calling AE title not recognised.*'NODE'"):
        scu.send(_to(archive(calling=["OTHER"])), _report(tmp_path)[0], **TITLE)


def test_a_full_peer_means_away(archive, tmp_path):
    address = archive(limit=1)
    entity = ApplicationEntity("FIRST")
    entity.add_requested_context(SR)
    first = entity.associate(*address)
    with pytest.raises(DestinationAwayError, match="local limit exceeded"):
        scu.send(_to(address), _report(tmp_path)[0], **TITLE)
    first.release()


def test_a_peer_without_the_sop_class_means_refused_and_names_it(archive, tmp_path):
    with pytest.raises(DestinationRefusedError, match=SR):
        scu.send(_to(archive([(CR, [ExplicitVRLittleEndian])])), _report(tmp_path)[0], **TITLE)


@pytest.mark.parametrize("content", [b"", b"no DICOM at all" * 20])
def test_what_is_no_part_10_file_is_not_sent(content, sink):
    with pytest.raises(CannotUnderstandError, match="Part 10"):
        scu.send(_to(sink.address), content, **TITLE)


def test_an_echo_is_quiet_when_it_succeeds(sink):
    scu.echo(_to(sink.address), **TITLE)


def test_an_echo_raises_what_sending_raises(archive):
    with pytest.raises(DestinationAwayError):
        scu.echo(_to(("127.0.0.1", free_port())), **TITLE)
    with pytest.raises(DestinationRefusedError, match="no presentation context"):
        scu.echo(_to(archive()), **TITLE)


def test_files_go_out_in_order_each_in_its_own_syntax(sink, tmp_path):
    syntaxes = [ImplicitVRLittleEndian, JPEGLosslessSV1, DeflatedExplicitVRLittleEndian]
    sent = [write_image(tmp_path / f"{n}.dcm", s, sop_instance_uid=f"1.2.{n}") for n, s in enumerate(syntaxes)]
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    sink._respond = lambda uid: 0xB000 if uid == "1.2.1" else 0
    assert scu.send_files(_to(sink.address), paths, **TITLE) == [0, 0xB000, 0]
    assert [_data_set(path.read_bytes()) for path in sink.files] == sent


def test_a_file_whose_kind_is_not_accepted_has_a_status_and_the_others_go_on(archive, tmp_path):
    address = archive([(CR, [ExplicitVRLittleEndian])], [(evt.EVT_C_STORE, lambda _event: 0)])
    write_image(tmp_path / "a.dcm", JPEGLosslessSV1)
    write_image(tmp_path / "b.dcm")
    statuses = scu.send_files(_to(address), [tmp_path / "a.dcm", tmp_path / "b.dcm"], **TITLE)
    assert statuses == [0x0122, 0]


def test_no_files_need_no_association():
    assert scu.send_files(_to(("127.0.0.1", 1)), [], **TITLE) == []


def test_a_file_that_is_no_part_10_file_is_named(sink, tmp_path):
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(CannotUnderstandError, match=r"x\.txt"):
        scu.send_files(_to(sink.address), [tmp_path / "x.txt"], **TITLE)


def test_a_patients_name_is_in_no_message_and_no_log(sink, tmp_path, caplog):
    caplog.set_level("DEBUG")
    sink._respond = lambda _uid: 0xC000
    with pytest.raises(DestinationRefusedError) as refused:
        scu.send(_to(sink.address), _report(tmp_path, PatientName="Secret^Name")[0], **TITLE)
    assert "Secret" not in str(refused.value) + caplog.text


CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.11",
)


def _forms(made, tmp_path):
    def form(sop_class):
        def make():
            made.append(sop_class)
            path = tmp_path / "form.dcm"
            write_image(path, ExplicitVRLittleEndian, sop_class=sop_class, sop_instance_uid="1.2.3.4")
            return path.read_bytes()

        return make

    return {sop_class: form(sop_class) for sop_class in CLASSES}


def test_the_richest_form_that_is_accepted_is_the_only_one_that_is_made_and_sent(archive, tmp_path):
    stored, made = [], []
    address = archive(
        contexts=[(CLASSES[1], [ExplicitVRLittleEndian]), (CLASSES[3], [ExplicitVRLittleEndian])],
        handlers=[(evt.EVT_C_STORE, lambda event: stored.append(event.request.AffectedSOPClassUID) or 0)],
    )
    delivery = scu.send_first(_to(address, "ARCHIVE"), _forms(made, tmp_path), **TITLE)
    assert (delivery.status, delivery.sent_as) == (0, CLASSES[1])
    assert stored == made == [CLASSES[1]]


def test_the_next_form_is_sent_where_the_destination_will_not_store_the_class_after_all(archive, tmp_path):
    stored = []

    def store(event):
        stored.append(event.request.AffectedSOPClassUID)
        return 0x0122 if len(stored) == 1 else 0xA900 if len(stored) == 2 else 0

    address = archive(
        contexts=[(sop_class, [ExplicitVRLittleEndian]) for sop_class in CLASSES],
        handlers=[(evt.EVT_C_STORE, store)],
    )
    delivery = scu.send_first(_to(address, "ARCHIVE"), _forms([], tmp_path), **TITLE)
    assert (delivery.sent_as, stored) == (CLASSES[2], list(CLASSES[:3]))


CAPTURE, STATE, SEGMENTATION = (
    "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.66.4"
)  # fmt: skip


def _beside(tmp_path, *classes):
    for number, sop_class in enumerate(classes, 1):
        path = tmp_path / f"beside-{number}.dcm"
        write_image(path, ExplicitVRLittleEndian, sop_class=sop_class, sop_instance_uid=f"1.2.3.5.{number}")
        yield path.read_bytes()


def test_objects_follow_the_report_on_its_association_and_those_that_are_declined_change_nothing(
    archive, tmp_path
):
    stored = []

    def store(event):
        stored.append((event.request.AffectedSOPClassUID, event.assoc.native_id))
        return 0xC000 if event.request.AffectedSOPClassUID == STATE else 0

    address = archive(
        contexts=[(one, [ExplicitVRLittleEndian]) for one in (CLASSES[0], CAPTURE, STATE)],
        handlers=[(evt.EVT_C_STORE, store)],
    )
    also = list(_beside(tmp_path, SEGMENTATION, STATE, CAPTURE))
    delivery = scu.send_first(_to(address, "ARCHIVE"), _forms([], tmp_path), also=also, **TITLE)
    assert [sop_class for sop_class, _ in stored] == [CLASSES[0], STATE, CAPTURE]
    assert len({association for _, association in stored}) == 1
    assert (delivery.sent_as, [one.sop_instance_uid for one in delivery.also]) == (CLASSES[0], ["1.2.3.5.3"])
    assert delivery.comment == (
        "without Segmentation Storage not accepted, "
        "Grayscale Softcopy Presentation State Storage 0xC000 (cannot understand)"
    )


def test_a_destination_without_room_for_an_object_is_tried_again(archive, tmp_path):
    answers = iter([0, 0xA700])
    address = archive(
        contexts=[(one, [ExplicitVRLittleEndian]) for one in (CLASSES[0], CAPTURE)],
        handlers=[(evt.EVT_C_STORE, lambda _event: next(answers))],
    )
    with pytest.raises(DestinationAwayError, match="display object"):
        scu.send_first(
            _to(address, "ARCHIVE"), _forms([], tmp_path), also=list(_beside(tmp_path, CAPTURE)), **TITLE
        )


def test_a_destination_that_takes_objects_and_no_report_is_told_so(archive, tmp_path):
    address = archive(contexts=[(CAPTURE, [ExplicitVRLittleEndian])])
    with pytest.raises(DestinationRefusedError, match="accepted no SOP class of a report"):
        scu.send_first(
            _to(address, "ARCHIVE"), _forms([], tmp_path), also=list(_beside(tmp_path, CAPTURE)), **TITLE
        )


def test_a_destination_that_takes_no_form_at_all_is_told_by_name(archive, tmp_path):
    address = archive(contexts=[(CR, [ExplicitVRLittleEndian])])
    with pytest.raises(DestinationRefusedError, match="accepted no presentation context"):
        scu.send_first(_to(address, "ARCHIVE"), _forms([], tmp_path), **TITLE)
