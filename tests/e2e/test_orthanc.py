"""The main job with real peers: DCMTK sends, the node scores, a real Orthanc holds the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.domain.types import Destination
from dicom_node.report import text
from dicom_node.report.header import raw_value
from tests.live import LiveNode, build_bank, running, until
from tests.peers import Orthanc, orthanc, require
from tests.peers_validators import dciodvfy
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.slow
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "cxr_dicom"

# What DCMTK can write: the converter and its options, then the options with which storescu proposes it.
# DCMTK has no shorthand for JPEG lossless without SV1, so that one goes by a profile of its own.
WRITABLE = {
    "implicit LE": (["dcmconv", "+ti"], ["-xi"]),
    "explicit LE": (["dcmconv", "+te"], ["-xe"]),
    "explicit BE": (["dcmconv", "+tb"], ["-xb"]),
    "deflated": (["dcmconv", "+td"], ["-xd"]),
    "JPEG baseline": (["dcmcjpeg", "+eb", "+ua"], ["-xy"]),
    "JPEG extended": (["dcmcjpeg", "+ee", "+ua"], ["-xx"]),
    "JPEG lossless SV1": (["dcmcjpeg", "+e1"], ["-xs"]),
    "JPEG lossless": (["dcmcjpeg", "+el"], []),
    "JPEG-LS lossless": (["dcmcjpls", "+el"], ["-xt"]),
    "JPEG-LS near": (["dcmcjpls", "+en"], ["-xu"]),
    "RLE": (["dcmcrle"], ["-xr"]),
}
NAMES = {
    "Latin-1": ("ISO_IR 100", "Müller^Jürgen"),
    "UTF-8 Japanese": ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Cyrillic": ("ISO_IR 144", "Иванов^Иван"),
}


DISPLAY = {
    "secondary-capture": ("OT", "SCImage"),
    "presentation-state": ("PR", "GrayscaleSoftcopyPresentationState"),
    "segmentation": ("SEG", "Segmentation"),
    "key-objects": ("KO", "KeyObjectSelectionDocument"),
}


def _program(name: str) -> str:
    """Return DCMTK's program, not pynetdicom's of the same name in the virtual environment."""
    found = shutil.which(name, path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    return found or require(f"DCMTK's {name}")


class House:
    """A node with its PACS."""

    def __init__(self, node: LiveNode, pacs: Orthanc) -> None:
        self.node = node
        self.pacs = pacs

    def storescu(self, path: Path, *options: str) -> None:
        required = [] if "-xf" in options else ["-R"]
        command = [_program("storescu"), *required, *options, "-aet", "CR1", "-aec", "DICOMNODE"]
        done = subprocess.run(
            [*command, "127.0.0.1", str(self.node.port), str(path)],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def report(self, study: str, folder: Path) -> Dataset:
        """Return the study's one report, from the PACS, valid by dciodvfy."""
        query = {"StudyInstanceUID": study, "Modality": "SR"}
        until(lambda: bool(self.pacs.find("Instance", **query)), f"the PACS has a report of {study}")
        (found,) = self.pacs.find("Instance", **query)
        content = self.pacs.file(found)
        assert dciodvfy(content, folder) == []
        return dcmread(BytesIO(content))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    build_bank(folder / "banks", folder)
    with orthanc(folder / "pacs") as pacs:
        node = LiveNode(folder, folder / "banks", Destination("pacs", pacs.ae_title, pacs.host, pacs.port))
        with node.config.open("a", encoding="utf-8") as config:
            config.write(f"objects = {json.dumps(list(DISPLAY))}\n")
        assert node.command("bank", "activate", "test").returncode == 0
        assert node.command("check").returncode == 0
        with running(node):
            yield House(node, pacs)


def _file(folder: Path, **changes: object) -> tuple[Path, Dataset]:
    """Write a phantom under new UIDs."""
    fresh = {
        key: f"2.25.{uuid.uuid4().int}" for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    dataset = chest_dataset(**{**fresh, **changes})
    path = folder / "phantom.dcm"
    path.write_bytes(part10(dataset))
    return path, dataset


def _references(report: Dataset) -> set[str]:
    return {
        str(sop.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize("syntax", WRITABLE)
def test_a_study_in_each_transfer_syntax_comes_back_scored(house: House, tmp_path: Path, syntax: str) -> None:
    (converter, *options), proposal = WRITABLE[syntax]
    bits = 8 if syntax == "JPEG baseline" else 12
    plain, dataset = _file(tmp_path, bits=bits)
    path = tmp_path / "encoded.dcm"
    # Lossy DCMTK gives the image a new UID, as it must; the study stays.
    done = subprocess.run(
        [_program(converter), *options, str(plain), str(path)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if not proposal:
        profile = tmp_path / "profile.cfg"
        profile.write_text(PROFILE, encoding="ascii")
        proposal = ["-xf", str(profile), "Lossless"]
    house.storescu(path, *proposal)
    report = house.report(dataset.StudyInstanceUID, tmp_path)
    assert _references(report) == {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)}
    facts = text.facts(report)
    assert facts["score"] is not None, facts["summary"]
    assert facts["score"] > 0
    if "lossless" in syntax or "LE" in syntax or syntax in {"explicit BE", "deflated", "RLE"}:
        (expected,) = _scores(house, plain)
        assert facts["score"] == pytest.approx(expected, rel=1e-4)


def _scores(house: House, *paths: Path) -> list[float]:
    import json

    done = house.node.command("score", *map(str, paths), "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["score"] for line in done.stdout.splitlines()]


PROFILE = """[[TransferSyntaxes]]
[Lossless]
TransferSyntax1 = 1.2.840.10008.1.2.4.57
[[PresentationContexts]]
[Images]
PresentationContext1 = DigitalXRayImageStorageForPresentation\\Lossless
[[Profiles]]
[Lossless]
PresentationContexts = Images
"""


@pytest.mark.parametrize("charset", NAMES)
def test_names_come_back_byte_equal(house: House, tmp_path: Path, charset: str) -> None:
    term, name = NAMES[charset]
    path, dataset = _file(tmp_path, SpecificCharacterSet=term, PatientName=name)
    house.storescu(path)
    report = house.report(dataset.StudyInstanceUID, tmp_path)
    sent = dcmread(path, stop_before_pixels=True)
    assert raw_value(report, "PatientName") == raw_value(sent, "PatientName")
    assert str(report.PatientName) == name
    assert report.SpecificCharacterSet == term


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fuji_cr_mono1_10bit_440_explicitLE.dcm", []),
        ("fuji_cr_mono1_10bit_440_implicitLE.dcm", ["-xi"]),
        ("fuji_cr_mono1_10bit_440_noPart10header", ["-f"]),
        ("philips_cr_mono1_15bit_1955_j2k_lossy.dcm", ["-xw"]),
        ("philips_cr_mono1_15bit_1955_jpegls_near.dcm", ["-xu"]),
        ("nih_google_dx_sc_mono2_implicitLE_1024.dcm", ["-xi"]),
        ("siim_cr_sc_mono2_jpegbaseline_1024.dcm", ["-xy"]),
    ],
)
def test_real_chest_radiographs_come_back_scored(
    house: House, tmp_path: Path, name: str, options: list[str]
) -> None:
    if not (REAL / name).exists():
        pytest.skip(f"there is no shared/data/cxr_dicom/{name} beside the repository")
    original = dcmread(REAL / name, force=True)
    study, path = f"2.25.{uuid.uuid4().int}", tmp_path / name
    # The Fuji and the Philips images are one each in several encodings: a study of its own for each file.
    original.StudyInstanceUID = study
    original.SOPInstanceUID = f"2.25.{uuid.uuid4().int}"
    if "TransferSyntaxUID" in original.file_meta:
        original.file_meta.MediaStorageSOPInstanceUID = original.SOPInstanceUID
        original.save_as(path)
    else:
        original.save_as(path, implicit_vr=True, little_endian=True)
    house.storescu(path, *options)
    report = house.report(study, tmp_path)
    facts = text.facts(report)
    assert _references(report) == {original.SOPInstanceUID}
    assert facts["score"] is not None, facts["summary"]
    assert raw_value(report, "PatientID") == (raw_value(original, "PatientID") or b"")


def test_what_is_shown_beside_a_report_is_valid_and_of_its_study(house: House, tmp_path: Path) -> None:
    path, dataset = _file(tmp_path, lesion="opacity", strength=5.0)
    house.storescu(path)
    report = house.report(dataset.StudyInstanceUID, tmp_path)
    assert text.facts(report)["above"]
    for modality, iod in DISPLAY.values():
        query = {"StudyInstanceUID": dataset.StudyInstanceUID, "Modality": modality}
        until(lambda query=query: bool(house.pacs.find("Instance", **query)), f"the PACS has the {iod}")  # type: ignore[misc]
        (found,) = house.pacs.find("Instance", **query)
        content = house.pacs.file(found)
        assert dciodvfy(content, tmp_path, iod) == []
        assert dcmread(BytesIO(content)).PatientName == dataset.PatientName
    assert len(house.pacs.find("Study", StudyInstanceUID=str(dataset.StudyInstanceUID))) == 1


def test_a_lateral_and_an_unreadable_image_are_answered_with_the_reason(house: House, tmp_path: Path) -> None:
    path, lateral = _file(tmp_path, ViewPosition="LL")
    house.storescu(path)
    facts = text.facts(house.report(lateral.StudyInstanceUID, tmp_path))
    assert facts["verdict"] == "not analysed"
    assert "LL" in str(facts["images"])
    path, broken = _file(tmp_path, Rows=4000)
    house.storescu(path)
    assert text.facts(house.report(broken.StudyInstanceUID, tmp_path))["verdict"] == "failed"


def test_the_self_test_passes_stays_in_the_node_and_goes_to_the_pacs_when_told(house: House) -> None:
    passed = house.node.json("selftest")
    assert passed["delivered"] == []
    assert house.pacs.find("Instance", StudyInstanceUID=passed["study_instance_uid"]) == []
    delivered = house.node.json("selftest", "--deliver")
    assert delivered["delivered"] == ["pacs"]
    assert house.pacs.find("Instance", StudyInstanceUID=delivered["study_instance_uid"], Modality="SR")


def test_nothing_is_left_to_do_and_no_name_stands_in_the_log(house: House) -> None:
    until(house.node.idle, "nothing is left to do", 60)
    log = house.node.log.read_text(encoding="utf-8")
    for name in ("Müller", "山田", "Иванов", "PHANTOM-", "Phantom^"):
        assert name not in log
