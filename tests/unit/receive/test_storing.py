from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.domain import errors
from dicom_node.domain.types import Ingested
from dicom_node.receive.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tests.peers import CR, write_image


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda s: s.name)
def test_the_bytes_arrive_as_they_were_sent_in_every_transfer_syntax(
    syntax, serve, keeper, associate, tmp_path
):
    data_set = write_image(tmp_path / "a.dcm", syntax.uid, sop_instance_uid="1.2.3.4.5")
    association = associate(serve(), classes=(CR,))
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    (received,) = keeper.received
    content = keeper.content(received)
    assert content[received.dataset_offset :] == data_set
    assert received.transfer_syntax_uid == syntax.uid
    meta = dcmread(keeper.kept / received.path.name, stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == syntax.uid
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
    assert meta.SourceApplicationEntityTitle == "MODALITY"


@pytest.mark.parametrize("storage", STORAGE_CLASSES, ids=lambda s: s.name)
def test_every_storage_class_is_taken(storage, serve, keeper, associate, tmp_path):
    write_image(tmp_path / "a.dcm", sop_class=storage.uid)
    association = associate(serve(), classes=(storage.uid,))
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    assert keeper.received[0].sop_class_uid == storage.uid


def test_a_received_object_says_who_sent_it_and_when(serve, keeper, associate, tmp_path):
    write_image(tmp_path / "a.dcm", sop_instance_uid="1.2.3")
    associate(serve(), calling="CR1", called="ANYONE").send_c_store(tmp_path / "a.dcm")
    (received,) = keeper.received
    assert received.sop_instance_uid == "1.2.3"
    assert (received.calling_ae_title, received.called_ae_title) == ("CR1", "ANYONE")
    assert received.peer_address == "127.0.0.1"
    assert received.received_at.tzinfo is not None
    assert received.association_id == keeper.opened[0].id
    assert received.path.parent == keeper.incoming


@pytest.mark.parametrize("size", [(1, 1), (1, 4095), (1, 4096), (200, 1000)])
@pytest.mark.parametrize("pdu", [0, 4096, 131_072])
def test_length_and_pdu_size_do_not_matter(size, pdu, serve, keeper, associate, tmp_path):
    data_set = write_image(tmp_path / "a.dcm", size=size)
    association = associate(serve(maximum_pdu_size=max(pdu, 4096)), pdu=pdu)
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    assert keeper.content(keeper.received[0])[keeper.received[0].dataset_offset :] == data_set


def test_many_objects_on_one_association_each_get_their_own_file(serve, keeper, associate, tmp_path):
    association = associate(serve())
    sent = []
    for number in range(5):
        sent.append(write_image(tmp_path / f"{number}.dcm", InstanceNumber=str(number)))
        assert association.send_c_store(tmp_path / f"{number}.dcm").Status == 0x0000
    assert [keeper.content(r)[r.dataset_offset :] for r in keeper.received] == sent
    assert list(keeper.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        errors.OutOfResourcesError("the disk is full"),
        errors.DatabaseError("away"),
        errors.DataSetMismatchError("another SOP class"),
        errors.InvalidIdentifierError("no UID"),
        errors.CannotUnderstandError("no data set"),
        errors.StoreError("the digest differs"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_each_error_is_answered_with_its_status_and_reason(error, serve, keeper, associate, tmp_path):
    def fail(_received):
        raise error

    keeper.before = fail
    write_image(tmp_path / "a.dcm")
    association = associate(serve())
    status = association.send_c_store(tmp_path / "a.dcm")
    assert status.Status == error.dimse_status
    assert status.ErrorComment == str(error)
    assert list(keeper.incoming.iterdir()) == []
    keeper.before = lambda _received: None
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000, "the association goes on"


def test_a_fault_of_ours_is_answered_and_logged_without_its_text(serve, keeper, associate, tmp_path, caplog):
    def fail(received):
        raise ValueError(f"cannot parse {dcmread(received.path).PatientName}")

    keeper.before = fail
    write_image(tmp_path / "a.dcm", sop_instance_uid="1.2.3.9")
    with caplog.at_level(logging.DEBUG):
        status = associate(serve()).send_c_store(tmp_path / "a.dcm")
    assert status.Status == 0x0110
    assert list(keeper.incoming.iterdir()) == []
    (record,) = [r for r in caplog.records if r.message == "C-STORE failed"]
    assert (record.error, record.sop_instance_uid) == ("ValueError", "1.2.3.9")
    assert "in fail" in record.where
    assert "Phantom" not in caplog.text + str([vars(r) for r in caplog.records])


def test_no_log_line_holds_a_patient_attribute(serve, associate, tmp_path, caplog):
    write_image(tmp_path / "a.dcm", PatientName="Secret^Name", PatientID="SECRET-ID")
    with caplog.at_level(logging.DEBUG):
        assert associate(serve()).send_c_store(tmp_path / "a.dcm").Status == 0x0000
    told = caplog.text + str([vars(record) for record in caplog.records])
    assert "Secret" not in told
    assert "SECRET" not in told


@pytest.mark.parametrize(
    ("ingested", "policy", "status"),
    [
        (Ingested.NEW, "refuse", 0x0000),
        (Ingested.DUPLICATE, "refuse", 0x0000),
        (Ingested.OWN, "refuse", 0x0000),
        (Ingested.CONFLICT, "accept", 0x0000),
        (Ingested.CONFLICT, "refuse", 0x0111),
    ],
)
def test_what_was_taken_in_is_answered_as_configured(
    ingested, policy, status, serve, keeper, associate, tmp_path
):
    keeper.answer = ingested
    write_image(tmp_path / "a.dcm")
    assert associate(serve(on_conflict=policy)).send_c_store(tmp_path / "a.dcm").Status == status


def test_a_full_disk_is_answered_before_anything_is_written(serve, keeper, associate, tmp_path):
    def refuse():
        raise errors.OutOfResourcesError("the disk is below its reserve of 512 MB")

    keeper.admit = refuse
    write_image(tmp_path / "a.dcm", size=(600, 600))
    association = associate(serve())
    status = association.send_c_store(tmp_path / "a.dcm")
    assert status.Status == 0xA700
    assert "reserve" in status.ErrorComment
    assert keeper.received == []
    assert list(keeper.incoming.iterdir()) == []
    keeper.admit = lambda: None
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000


def test_a_disk_that_fills_while_an_object_arrives_stops_it(serve, keeper, associate, tmp_path):
    asked = []

    def admit():
        asked.append(len(list(keeper.incoming.iterdir())))
        if len(asked) == 2:
            raise errors.OutOfResourcesError("the disk is below its reserve")

    keeper.admit = admit
    write_image(tmp_path / "a.dcm", size=(3000, 3000))
    association = associate(serve(maximum_pdu_size=131_072))
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0xA700
    assert asked == [0, 1], "asked before the first byte and again on the way"
    assert list(keeper.incoming.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_answered_as_out_of_resources(serve, keeper, associate, tmp_path):
    write_image(tmp_path / "a.dcm")
    association = associate(serve())
    keeper.incoming.rmdir()
    status = association.send_c_store(tmp_path / "a.dcm")
    assert status.Status == 0xA700
    assert "No such file" in status.ErrorComment
    keeper.incoming.mkdir()
    assert association.send_c_store(tmp_path / "a.dcm").Status == 0x0000


def test_a_write_error_of_the_disk_is_answered_as_out_of_resources(serve, keeper, associate, tmp_path):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    keeper.admit = full
    write_image(tmp_path / "a.dcm")
    status = associate(serve()).send_c_store(tmp_path / "a.dcm")
    assert status.Status == 0xA700
    assert "No space left" in status.ErrorComment


@pytest.mark.parametrize("uid", ["1..2", "12", "1.2.x", "../../etc"])
def test_a_malformed_instance_uid_is_refused(uid, serve, keeper, associate, send_command):
    answer = send_command(associate(serve(), classes=(CR,)), CR, b"\x08\x00\x05\x00", uid=uid)
    assert answer.Status == 0xA900
    assert "Affected SOP Instance UID" in answer.ErrorComment
    assert keeper.received == []
    assert list(keeper.incoming.iterdir()) == []


def test_an_object_of_another_class_than_its_context_is_refused(serve, keeper, associate, send_command):
    association = associate(serve(), classes=(CR,))
    answer = send_command(association, "1.2.840.10008.5.1.4.1.1.88.33", b"\x08\x00\x05\x00")
    assert answer.Status == 0xA900
    assert "SOP class" in answer.ErrorComment
    assert keeper.received == []
    assert list(keeper.incoming.iterdir()) == []


def test_a_command_without_a_data_set_is_not_understood(serve, keeper, associate, send_command):
    assert send_command(associate(serve(), classes=(CR,)), CR, None).Status == 0xC000
    assert keeper.received == []


def test_reports_cannot_be_negotiated(serve, associate):
    association = associate(serve(), classes=("1.2.840.10008.5.1.4.1.1.88.34", CR))
    refused = {str(context.abstract_syntax) for context in association.rejected_contexts}
    assert refused == {"1.2.840.10008.5.1.4.1.1.88.34"}


def test_two_associations_store_at_the_same_time(serve, keeper, associate, tmp_path):
    meeting = threading.Barrier(2, timeout=10)
    keeper.before = lambda _received: meeting.wait() and None
    scp = serve()
    statuses = []

    def store(path: Path) -> None:
        write_image(path)
        statuses.append(associate(scp).send_c_store(path).Status)

    threads = [threading.Thread(target=store, args=(tmp_path / f"{n}.dcm",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0, 0], "each handler waited for the other, so both ran at once"
