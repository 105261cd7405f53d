"""``dicom-node retrieve`` and ``backfill`` with Orthanc as the archive; nothing of a patient is shown or kept."""

from __future__ import annotations

import csv
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from pydicom import dcmread
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.db.engine import reading
from dicom_node.domain.errors import BankError, ConfigError
from dicom_node.node import backfill, normals, open_node
from dicom_node.store import holdings
from tests.archives import fill, pacs, write_study
from tests.peers import Orthanc, free_port

pytestmark = pytest.mark.slow

NAME, PATIENT, ACCESSION = "Geheim^Gertrud", "GEHEIM-4711", "GEHEIM-A1"


@dataclass
class House:
    """A site, and its archive's studies of one patient by day, and of another patient."""

    folder: Path
    peer: Orthanc
    studies: dict[str, str]

    def command(self, *arguments: str, stdin: str = "") -> Result:
        config = ["--config", str(self.folder / "config.toml")]
        done = CliRunner().invoke(app, [*arguments, *config], input=stdin)
        assert "GEHEIM" not in done.output.upper()
        return done

    def json(self, *arguments: str, stdin: str = "") -> list[dict[str, object]]:
        done = self.command(*arguments, "--json", stdin=stdin)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        return found if isinstance(found, list) else [found]

    def held(self, study: str) -> int:
        with open_node(load(self.folder / "config.toml")) as node, reading(node.engine) as conn:
            return len(holdings.held(conn, study))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    studies = {}
    with pacs(folder / "pacs", free_port()) as peer:
        for day in ("20250110", "20250320", "20250321", "20250322"):
            patient = {"PatientID": PATIENT, "PatientName": NAME, "AccessionNumber": ACCESSION + day}
            studies[day], paths = write_study(folder / day, images=2, StudyDate=day, **patient)
            fill(peer, paths)
        studies["other"], paths = write_study(folder / "other", images=1, StudyDate="20250320", PatientID="X")
        fill(peer, paths)
        (folder / "config.toml").write_text(
            f"""
[store]
root = "{folder / "store"}"
reserve_megabytes = 1
[db]
url = "sqlite:///{folder / "node.db"}"
[[archives]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {peer.port}
""",
            encoding="utf-8",
        )
        yield House(folder, peer, studies)
    for path in [*folder.glob("node.db*"), *(folder / "store" / "audit").rglob("*")]:
        if path.is_file():
            assert PATIENT.encode() not in path.read_bytes()


def test_a_dry_run_says_what_would_be_fetched_and_fetches_nothing(house: House) -> None:
    rows = house.json("retrieve", "--from", "pacs", "--patient", "-", "--dry-run", stdin=f"{PATIENT}\n")
    assert [row["study_date"] for row in rows] == ["20250110", "20250320", "20250321", "20250322"]
    assert [row["images"] for row in rows] == [2, 2, 2, 2]
    assert house.held(house.studies["20250110"]) == 0


def test_one_study_is_fetched_by_its_accession_number(house: House) -> None:
    (row,) = house.json("retrieve", "--from", "pacs", "--accession", "-", stdin=f"{ACCESSION}20250322\n")
    assert row["study_instance_uid"] == house.studies["20250322"]
    assert (row["stored"], row["failed"], row["complete"]) == (2, 0, True)
    assert house.held(house.studies["20250322"]) == 2


def test_priors_are_the_same_patients_earlier_chest_studies_the_newest_first(house: House) -> None:
    study = house.studies["20250321"]
    rows = house.json("retrieve", "--from", "pacs", "--study", study, "--priors", "--dry-run")
    assert [row["study_date"] for row in rows] == ["20250320", "20250110"]


def test_what_matches_nothing_or_too_much_is_told(house: House) -> None:
    nothing = house.command("retrieve", "--from", "pacs", "--date", "1999-01-01")
    assert (nothing.exit_code, nothing.stdout) == (0, "nothing matches\n")
    much = house.command("retrieve", "--from", "pacs", "--date", "2025-01-01..2025-12-31", "--most", "2")
    assert much.exit_code == 2
    assert "more than 2 studies match" in much.output
    assert house.command("retrieve", "--from", "nowhere", "--study", "1.2").exit_code == 2


def test_a_backfill_is_asked_for_then_fetched_and_told_of(house: House) -> None:
    period = ("--archive", "pacs", "--from", "2025-03-20", "--to", "2025-03-21")
    assert house.json("backfill", *period, "--dry-run") == [{"found": 3, "due": 0, "days": 2}]
    assert house.json("backfill", *period) == [{"found": 3, "due": 3, "days": 2}]
    assert house.json("backfill", *period) == [{"found": 3, "due": 0, "days": 2}]
    with open_node(load(house.folder / "config.toml")) as node:
        assert backfill(node, threading.Event())() == 3
    (status,) = house.json("backfill", "--status")
    (row,) = status["archives"]  # type: ignore[misc] # a list, by the command's help
    assert (row["fetched"], row["images"], row["due"]) == (3, 5, 0)
    assert house.held(house.studies["20250321"]) == 2
    assert "3" in house.command("backfill", "--status").stdout


def test_normals_for_a_bank_come_into_a_private_folder_and_leave_no_trace(house: House) -> None:
    config = load(house.folder / "config.toml")
    with open_node(config) as node:
        with normals(node, "pacs from=2025-01-01 to=2025-12-31 modality=CR") as (table, source):
            rows = list(csv.DictReader(table.open(encoding="utf-8")))
            folder = table.parent
            assert folder.stat().st_mode & 0o777 == 0o700
            assert {Path(row["path"]).stat().st_mode & 0o777 for row in rows} == {0o600}
            assert len({row["path"] for row in rows}) == 9
            assert Counter(row["patient_id"] for row in rows).most_common(1)[0][1] == 8
            assert PATIENT not in table.read_text(encoding="utf-8")
        assert source == "archive pacs, CR of 2025-01-01 to 2025-12-31"
        assert not folder.exists()


def test_normals_are_named_by_their_studies_too(house: House, tmp_path: Path) -> None:
    (tmp_path / "normals.txt").write_text(f"# two\n{house.studies['other']}\n1.2.3.4\n", encoding="ascii")
    with open_node(load(house.folder / "config.toml")) as node:
        with normals(node, f"pacs studies={tmp_path / 'normals.txt'}") as (table, source):
            assert len(table.read_text(encoding="utf-8").splitlines()) == 2
        assert source == "archive pacs, 2 studies by list"


def test_normals_come_by_c_move_to_a_port_of_their_own_and_never_into_the_node(
    house: House, tmp_path: Path
) -> None:
    config, port = house.folder / "config.toml", free_port()
    moving = tmp_path / "moving.toml"
    keys = f'how = "c-move"\nnormals_ae_title = "NORMALS"\nnormals_port = {port}\n'
    moving.write_text(config.read_text(encoding="utf-8") + keys, encoding="utf-8")
    house.peer.knows("NORMALS", port)
    query = "pacs from=2025-01-01 to=2025-01-31 modality=CR"
    with open_node(load(moving)) as node:
        with normals(node, query) as (table, _source):
            rows = list(csv.DictReader(table.open(encoding="utf-8")))
            assert len({row["path"] for row in rows}) == 2
            assert {Path(row["path"]).parent for row in rows} == {table.parent}
            assert {Path(row["path"]).stat().st_mode & 0o777 for row in rows} == {0o600}
        assert not table.parent.exists()
    assert house.held(house.studies["20250110"]) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # nobody listens any more

    house.peer.knows("NORMALS", free_port())
    with (
        open_node(load(moving)) as node,
        pytest.raises(BankError, match="no normals came"),
        normals(node, query),
    ):
        pytest.fail("it was taken")


def test_an_archive_that_moves_without_a_port_for_normals_says_what_to_set(
    house: House, tmp_path: Path
) -> None:
    moving = tmp_path / "moving.toml"
    moving.write_text(
        (house.folder / "config.toml").read_text(encoding="utf-8") + 'how = "c-move"\n', encoding="utf-8"
    )
    with (
        open_node(load(moving)) as node,
        pytest.raises(ConfigError, match="set normals_ae_title and normals_port, which the archive must know"),
        normals(node, "pacs from=2025-01-01 to=2025-01-31"),
    ):
        pytest.fail("it was taken")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "pacs",
        "pacs from=2025-01-01",
        "pacs day=1",
        "pacs from=x to=y",
        "pacs studies=away.txt",
        "off studies=a",
    ],
)
def test_a_query_for_normals_that_is_none_says_what_would_be(house: House, query: str) -> None:
    with (
        open_node(load(house.folder / "config.toml")) as node,
        pytest.raises(ConfigError, match=r"--from-pacs"),
        normals(node, query),
    ):
        pytest.fail("it was taken")


def test_files_fetched_are_the_ones_that_the_archive_holds(house: House) -> None:
    house.json("retrieve", "--from", "pacs", "--study", house.studies["20250110"])
    kept = {path.name for path in (house.folder / "store" / "instances").rglob("*.dcm")}
    uids = {str(dcmread(path).SOPInstanceUID) for path in (house.folder / "20250110").iterdir()}
    found = {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in (house.folder / "store" / "instances").rglob("*.dcm")
    }
    assert uids <= found
    assert kept
