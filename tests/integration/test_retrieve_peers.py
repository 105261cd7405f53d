"""Fetching from real archives, Orthanc and DCMTK's dcmqrscp: every image, byte for byte, by each way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.db.engine import reading
from dicom_node.domain.retrieval import Fetched
from dicom_node.node import fetcher
from dicom_node.store import instances, studies
from tests.archives import (
    HOWS,
    PLUGIN,
    SR,
    Fetching,
    dcmqrscp,
    fetching,
    fill,
    pacs,
    section,
    store_into,
    write_study,
)
from tests.peers import Orthanc, free_port, write_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fetching, Orthanc]]:
    folder = tmp_path_factory.mktemp("house")
    port = free_port()
    with pacs(folder / "pacs", port) as peer:
        archives = [section(how, how, "ORTHANC", peer.port, peer.http_port) for how in HOWS]
        with fetching(folder, port, archives) as node:
            yield node, peer


def _held(node: Fetching, study: str) -> dict[str, bytes]:
    with reading(node.node.engine) as conn:
        found = instances.of_revision(conn, node.node.files, study, studies.latest_revision(conn, study) or 0)
        return {one.sop_instance_uid: one.path.read_bytes() for one in found}


def _data_set(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _require(how: str) -> None:
    if how == "wado" and not PLUGIN.exists():
        pytest.skip("Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb)")


@pytest.mark.parametrize("how", HOWS)
def test_every_image_of_a_study_comes_byte_for_byte(
    house: tuple[Fetching, Orthanc], tmp_path: Path, how: str
) -> None:
    _require(how)
    node, peer = house
    study, paths = write_study(tmp_path / "study", images=2, series=2)
    fill(peer, paths)
    assert node.fetch(how, study) == Fetched(4, 0, 4)
    held = _held(node, study)
    for path in paths:
        uid = str(dcmread(path).SOPInstanceUID)
        assert _data_set(held.pop(uid)) == _data_set(path.read_bytes())
    assert not held


@pytest.mark.parametrize("how", HOWS)
def test_reports_and_what_is_held_already_are_not_fetched(
    house: tuple[Fetching, Orthanc], tmp_path: Path, how: str
) -> None:
    _require(how)
    node, peer = house
    study, paths = write_study(tmp_path / "study", images=2)
    write_image(tmp_path / "sr.dcm", sop_class=SR, study_instance_uid=study, Modality="SR")
    fill(peer, [paths[0], tmp_path / "sr.dcm"])
    assert node.fetch(how, study) == Fetched(1, 0, 1)
    fill(peer, [paths[1]])
    assert node.fetch(how, study) == Fetched(2, 0, 2)
    assert node.fetch(how, study) == Fetched(2, 0, 2)
    assert len(_held(node, study)) == 2
    assert fetcher(node.node).count(node.archives[how], study) == 2


@pytest.mark.parametrize("how", HOWS)
def test_a_study_that_the_archive_does_not_have_is_not_complete_and_says_so(
    house: tuple[Fetching, Orthanc], how: str
) -> None:
    _require(how)
    node, _ = house
    fetched = node.fetch(how, "1.2.3.4")
    assert (fetched.stored, fetched.failed, fetched.complete) == (0, 0, False)
    assert "has no image of 1.2.3.4" in fetched.reason


@pytest.mark.parametrize("how", ["c-get", "c-move"])
def test_dcmqrscp_gives_a_study_too(tmp_path: Path, how: str) -> None:
    port = free_port()
    study, paths = write_study(tmp_path / "study", images=3)
    with (
        dcmqrscp(tmp_path / "qr", port) as archive,
        fetching(tmp_path, port, [section(how, "qr", "DCMQR", archive)]) as node,
    ):
        store_into(archive, "DCMQR", paths)
        assert node.fetch(how, study) == Fetched(3, 0, 3)
        assert len(_held(node, study)) == 3


@pytest.mark.parametrize("how", ["c-get", "wado"])
def test_studies_are_found_by_keys_ranges_and_wildcards(
    house: tuple[Fetching, Orthanc], tmp_path: Path, how: str
) -> None:
    _require(how)
    node, peer = house
    patient = f"WANTED-{how}"
    study, paths = write_study(tmp_path / "study", images=2, StudyDate="20240229", PatientID=patient)
    fill(peer, paths)
    find = fetcher(node.node).find
    for keys in (
        {"StudyInstanceUID": study},
        {"PatientID": patient},
        {"PatientID": f"WANTED-{'*' if how == 'c-get' else how}"},
        {"StudyDate": "20240228-20240301", "ModalitiesInStudy": "CR", "PatientID": patient},
    ):
        matches, more = find(node.archives[how], keys)
        assert len(matches) == 1, keys
        (one,) = matches
        assert (one.study_instance_uid, one.study_date, one.images, more) == (study, "20240229", 2, False)
        assert (one.modalities, one.patient_id) == (("CR",), patient)
    assert find(node.archives[how], {"StudyDate": "20240228", "PatientID": patient}) == ([], False)
