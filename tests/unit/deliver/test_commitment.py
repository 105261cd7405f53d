from __future__ import annotations

import threading

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context

from dicom_node.deliver import commitment, find, scu
from dicom_node.deliver.association import associated
from dicom_node.domain.commitment import CommitmentResult, Failure, Reference
from dicom_node.domain.errors import (
    CannotUnderstandError,
    DestinationAwayError,
    DestinationRefusedError,
    NotOfferedError,
)
from dicom_node.domain.types import Destination
from tests.peers import CR, free_port, orthanc, write_image

SR = Reference("1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4")
OTHER = Reference("1.2.840.10008.5.1.4.1.1.7", "1.2.3.5")
TITLE = {"calling_ae_title": "NODE", "timeout": 5.0}


@pytest.fixture
def provider():
    """Start a commitment provider that answers as told; yields a function that returns its destination."""
    entities = []

    def start(status=0, event=None, sop_class=commitment.PUSH_MODEL):
        asked = []

        def on_action(request):
            asked.append(request.action_information)
            if event is not None:
                told.append(event(request))
            return status, None

        def on_sent(event_):  # the N-ACTION response has left; a handler may not send from its own thread
            while told:
                event_type, information = told.pop()
                report = (information, event_type, commitment.PUSH_MODEL, commitment.INSTANCE)
                threading.Thread(target=event_.assoc.send_n_event_report, args=report, daemon=True).start()

        told = []
        entity = ApplicationEntity("ARCHIVE")
        entity.add_supported_context(sop_class, [ExplicitVRLittleEndian])
        server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_N_ACTION, on_action), (evt.EVT_DIMSE_SENT, on_sent)],
        )
        entities.append(entity)
        return Destination("pacs", "ARCHIVE", *server.server_address), asked

    yield start
    for entity in entities:
        entity.shutdown()


def everything(request):
    information = request.action_information
    references = [
        Reference(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for item in information.ReferencedSOPSequence
    ]
    return commitment.report(CommitmentResult(information.TransactionUID, tuple(references)))


def test_objects_are_asked_for_by_name_and_the_answer_on_the_association_is_read(provider):
    destination, asked = provider(event=everything)
    result = commitment.request(destination, [SR, OTHER], "2.25.1", **TITLE)
    assert result == CommitmentResult("2.25.1", (SR, OTHER))
    assert asked[0].TransactionUID == "2.25.1"


def test_a_partial_failure_names_what_is_not_committed_and_why(provider):
    def partly(request):
        uid = request.action_information.TransactionUID
        return commitment.report(CommitmentResult(uid, (SR,), (Failure(OTHER, 0x0112),)))

    destination, _ = provider(event=partly)
    result = commitment.request(destination, [SR, OTHER], "2.25.1", **TITLE)
    assert result == CommitmentResult("2.25.1", (SR,), (Failure(OTHER, 0x0112),))


def test_an_answer_that_does_not_come_on_the_association_is_none(provider):
    destination, _ = provider()
    assert commitment.request(destination, [SR], "2.25.1", **TITLE, wait=0.2) is None


def test_an_answer_to_another_transaction_is_not_taken_for_ours(provider):
    destination, _ = provider(event=lambda _request: commitment.report(CommitmentResult("2.25.9", (SR,))))
    assert commitment.request(destination, [SR], "2.25.1", **TITLE, wait=0.5) is None


def test_who_offers_no_commitment_is_told_from_who_refuses_it_and_from_who_is_away(provider):
    destination, _ = provider(sop_class=CR)
    with pytest.raises(NotOfferedError, match=r"accepted no presentation context"):
        commitment.request(destination, [SR], "2.25.1", **TITLE)
    destination, _ = provider(status=0x0110)
    with pytest.raises(DestinationRefusedError, match="0x0110 to a storage commitment request"):
        commitment.request(destination, [SR], "2.25.1", **TITLE)
    with pytest.raises(DestinationAwayError):
        commitment.request(Destination("pacs", "X", "127.0.0.1", free_port()), [SR], "2.25.1", **TITLE)


def test_an_event_report_of_another_type_or_without_a_transaction_is_no_answer():
    _, information = commitment.report(CommitmentResult("2.25.1", (SR,)))
    with pytest.raises(CannotUnderstandError, match="type 7 with a Transaction UID"):
        commitment.read_report(7, information)
    with pytest.raises(CannotUnderstandError, match="type 1 without a Transaction UID"):
        commitment.read_report(1, Dataset())


def test_a_report_that_is_told_is_read_back_as_it_was():
    for result in (
        CommitmentResult("2.25.1", (SR, OTHER)),
        CommitmentResult("2.25.1", (), (Failure(SR, 0x0112),)),
        CommitmentResult("2.25.1", (SR,), (Failure(OTHER, 0x0131),)),
    ):
        assert commitment.read_report(*commitment.report(result)) == result


@pytest.mark.peer("Orthanc")
def test_orthanc_finds_what_it_was_sent_and_nothing_else(tmp_path):
    with orthanc(tmp_path / "pacs", DicomAlwaysAllowFind=True) as pacs:
        destination = Destination("pacs", pacs.ae_title, pacs.host, pacs.port)
        path = tmp_path / "image.dcm"
        write_image(path, ExplicitVRLittleEndian, sop_class=CR, sop_instance_uid="1.2.3.4")
        scu.send(destination, path.read_bytes(), **TITLE)
        ds = dcmread(path)
        where = {"study_instance_uid": ds.StudyInstanceUID, "series_instance_uid": ds.SeriesInstanceUID}
        assert find.holds(destination, **where, sop_instance_uid="1.2.3.4", **TITLE) is True
        assert find.holds(destination, **where, sop_instance_uid="1.2.3.5", **TITLE) is False


def test_a_destination_without_query_is_told(provider):
    destination, _ = provider()
    with pytest.raises(NotOfferedError):
        find.holds(destination, study_instance_uid="1", series_instance_uid="2", sop_instance_uid="3", **TITLE)


@pytest.mark.peer("Orthanc")
def test_an_archive_that_does_not_know_who_asks_for_commitment_refuses_it_and_is_not_waited_for(tmp_path):
    with orthanc(tmp_path / "pacs") as pacs:  # its list of modalities is empty, so it cannot answer
        destination = Destination("pacs", pacs.ae_title, pacs.host, pacs.port)
        with pytest.raises(DestinationRefusedError, match="it must know 'NODE'"):
            commitment.request(destination, [SR], "2.25.1", **(TITLE | {"timeout": 60.0}))


@pytest.mark.peer("Orthanc")
def test_an_archive_that_lets_nobody_query_is_told_what_to_allow(tmp_path):
    with orthanc(tmp_path / "pacs") as pacs:
        destination = Destination("pacs", pacs.ae_title, pacs.host, pacs.port)
        with pytest.raises(DestinationRefusedError, match="must allow 'NODE' to query"):
            find.holds(
                destination, study_instance_uid="1", series_instance_uid="2", sop_instance_uid="3", **TITLE
            )


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # what pynetdicom makes of it
def test_a_release_that_a_request_of_the_peer_holds_up_ends_when_the_time_is_over(provider):
    destination, _ = provider()
    contexts = [build_context(commitment.PUSH_MODEL, ExplicitVRLittleEndian)]
    with associated(
        destination, contexts, calling_ae_title="NODE", timeout=0.5, maximum_pdu_size=16_384
    ) as association:
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            pass
        association._is_paused = False  # as the end of its thread for an N-EVENT-REPORT leaves it
    assert not association.is_established
