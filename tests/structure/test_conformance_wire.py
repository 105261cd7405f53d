"""What deploy/CONFORMANCE.md states of associations, held against real ones in both roles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicom_node.config import Receive, load
from dicom_node.deliver import commitment, find, scu
from dicom_node.domain.commitment import CommitmentRequest, CommitmentResult, Reference
from dicom_node.domain.errors import DestinationRefusedError
from dicom_node.domain.types import (
    Destination,
    Ingested,
    Received,
)
from dicom_node.receive import contexts
from dicom_node.receive.commitment import CommitmentService
from dicom_node.receive.scp import Scp
from dicom_node.report import profile
from dicom_node.report.stated import DISPLAY_CLASSES
from tests.statement import SCP, SCU, table


class NoCommitments:
    """Nobody asks for storage commitment in these tests: it is only negotiated."""

    def take(self, request: CommitmentRequest) -> CommitmentResult:
        raise NotImplementedError

    def told(self, request: CommitmentRequest, status: int | None) -> None:
        raise NotImplementedError

    def answered(self, result: CommitmentResult, calling_ae_title: str) -> bool:
        raise NotImplementedError


@pytest.fixture
def scp(tmp_path: Path) -> Iterator[Scp]:
    def ingest(received: Received) -> Ingested:
        received.path.unlink()
        return Ingested.NEW

    scp = Scp(
        Receive(port=0),
        incoming=tmp_path,
        ingest=ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=lambda: datetime.now(UTC),
        commitment=CommitmentService(
            NoCommitments(), commitment.read_report, commitment.report, lambda: datetime.now(UTC)
        ),
    )
    with scp:
        yield scp


@pytest.fixture
def association(scp: Scp) -> Iterator[Association]:
    entity = AE("CR1")
    entity.add_requested_context(contexts.VERIFICATION.uid)
    association = entity.associate(*scp.address, ae_title="DICOMNODE")
    assert association.is_established
    yield association
    association.release()


def test_the_identifiers_on_the_wire_are_the_stated_ones(association: Association) -> None:
    stated: dict[str, str] = dict(table(SCP, "property", "value"))
    acceptor = association.acceptor
    assert stated["implementation class UID"] == str(acceptor.implementation_class_uid)
    assert stated["implementation version name"] == str(acceptor.implementation_version_name)
    assert stated["maximum PDU received"].split()[0] == str(acceptor.maximum_length)
    assert stated["associations at a time"].split()[0] == str(load().receive.max_associations)
    assert stated["application context"] == str(association.acceptor.primitive.application_context_name)  # type: ignore[union-attr]


def test_what_is_accepted_on_the_wire_is_what_is_stated(scp: Scp) -> None:
    rows = table(SCP, "SOP class", "UID")
    syntaxes = [uid for _, uid in table(SCP, "transfer syntax", "UID")]
    refused = ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110"]  # MPEG-2, JPEG XL
    for _, sop_class in (*rows, ("no service of this node", Comprehensive3DSRStorage)):
        entity = AE("CR1")
        for syntax in (*syntaxes, *refused):
            entity.add_requested_context(sop_class, syntax)
        association = entity.associate(*scp.address, ae_title="DICOMNODE")
        accepted = [str(context.transfer_syntax[0]) for context in association.accepted_contexts]
        expected = syntaxes if sop_class in {entry.uid for entry in contexts.STORAGE_CLASSES} else syntaxes[:3]
        assert accepted == ([] if sop_class == Comprehensive3DSRStorage else expected), sop_class
        association.release() if association.is_established else association.abort()


def an_object(sop_class: str) -> bytes:
    ds, meta = Dataset(), FileMetaDataset()
    ds.SOPClassUID = meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    FileDataset(content, ds, file_meta=meta, preamble=b"\0" * 128).save_as(content, enforce_file_format=True)
    return content.getvalue()


def test_the_user_proposes_what_is_stated() -> None:
    proposed: dict[str, set[str]] = {}

    def note(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            proposed.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))

    rows = table(SCU, "SOP class", "UID", "transfer syntaxes")
    entity = AE("PACS")
    names = {entry.name: entry.uid for entry in contexts.TRANSFER_SYNTAXES}
    for _, uid, _ in rows:
        entity.add_supported_context(uid, list(names.values())[:2])
    handlers = [
        (evt.EVT_REQUESTED, note),
        (evt.EVT_C_STORE, lambda _event: 0),
        (evt.EVT_C_ECHO, lambda _event: 0),
        (evt.EVT_C_FIND, lambda _event: iter(())),
        (evt.EVT_N_ACTION, lambda _event: (0x0110, None)),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    forms = {sop_class: partial(an_object, sop_class) for sop_class in profile.CLASSES}
    beside = [an_object(sop_class) for sop_class in DISPLAY_CLASSES.values()]
    uids = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.2", "sop_instance_uid": "1.2.3"}
    try:
        peer = Destination("pacs", "PACS", "127.0.0.1", server.server_address[1])
        scu.echo(peer, calling_ae_title="DICOMNODE")
        scu.send_first(peer, forms, also=beside, calling_ae_title="DICOMNODE")
        assert not find.holds(peer, **uids, calling_ae_title="DICOMNODE")
        with pytest.raises(DestinationRefusedError, match="0x0110"):
            commitment.request(peer, [Reference("1.2", "1.2.3")], "2.25.1", calling_ae_title="DICOMNODE")
    finally:
        entity.shutdown()
    assert proposed == {uid: {names[name] for name in syntaxes.split(", ")} for _, uid, syntaxes in rows}
