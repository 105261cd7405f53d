from __future__ import annotations

import socket

import pytest
from pydicom import dcmread

from dicom_node.deliver import scu
from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.types import Destination
from tests.peers import write_image

TITLE = {"calling_ae_title": "NODE", "timeout": 5.0}


def test_it_keeps_readable_files_named_by_their_uid(tmp_path):
    write_image(tmp_path / "a.dcm", sop_instance_uid="1.2.3")
    with StorageSink(tmp_path / "sink") as sink:
        destination = Destination("sink", sink.ae_title, *sink.address)
        assert scu.send_files(destination, [tmp_path / "a.dcm"] * 2, **TITLE) == [0, 0]
        (kept,) = sink.files
    assert dcmread(kept) == dcmread(tmp_path / "a.dcm")


def test_a_uid_that_is_a_path_is_refused(tmp_path):
    write_image(tmp_path / "a.dcm", sop_instance_uid="../evil")
    with StorageSink(tmp_path / "sink") as sink:
        destination = Destination("sink", sink.ae_title, *sink.address)
        assert scu.send_files(destination, [tmp_path / "a.dcm"], **TITLE) == [0xA900]
        assert list(tmp_path.rglob("*evil*")) == []


def test_it_answers_what_it_is_told_and_keeps_only_what_it_said_it_stored(tmp_path):
    answers = {"1.2.1": 0xA700, "1.2.2": 0xB000, "1.2.3": 0xC000}
    paths = [tmp_path / f"{uid}.dcm" for uid in answers]
    for uid, path in zip(answers, paths, strict=True):
        write_image(path, sop_instance_uid=uid)
    with StorageSink(tmp_path / "sink", respond=answers.__getitem__) as sink:
        destination = Destination("sink", sink.ae_title, *sink.address)
        assert scu.send_files(destination, paths, **TITLE) == [0xA700, 0xB000, 0xC000]
        assert [path.name for path in sink.files] == ["1.2.2.dcm"]


def test_a_stopped_sink_frees_its_port(tmp_path):
    sink = StorageSink(tmp_path / "sink")
    _, port = sink.start()
    with pytest.raises(OutOfResourcesError, match=str(port)):
        StorageSink(tmp_path / "sink", port=port).start()
    sink.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    with StorageSink(tmp_path / "sink", port=port) as again:
        assert again.address[1] == port
