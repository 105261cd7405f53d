"""What `check` looks at ends in a finding, whatever is wrong."""

from __future__ import annotations

from pathlib import Path

from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.types import Destination
from dicom_node.pipeline import readiness
from dicom_node.pipeline.health import Health


def test_a_store_whose_staging_is_no_folder_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "incoming").touch()
    finding = readiness.store(tmp_path, lambda: None)
    assert not finding.ok
    assert "cannot be written" in finding.detail
    assert str(tmp_path) in finding.detail


def test_what_waits_and_what_failed_is_told_and_keeps_nothing_from_starting() -> None:
    seen = Health(
        {("analyse", "SCHEDULED"): 2, ("deliver", "IN_PROGRESS"): 1, ("deliver", "FAILED"): 4}, 5 * 10**9, 61.0
    )
    finding = readiness.queue(seen)
    assert finding.ok
    assert finding.detail == (
        "3 items wait, the oldest for 61 s; 4 failed and wait for a person; 5.0 GB are free in the store"
    )


def test_a_store_that_is_open_to_others_is_warned_of(tmp_path: Path) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "open"
    closed.mkdir(0o700)
    opened.mkdir()
    opened.chmod(0o750)
    (finding,) = readiness.privacy([closed, opened, tmp_path / "missing"])
    assert finding.ok
    assert finding.detail == f"warning: {opened} is open to others (mode 0750); chmod 0700 it"


def test_each_destination_is_told_of_by_what_it_was_asked() -> None:
    def ask(destination: Destination) -> None:
        if destination.name == "down":
            raise DestinationAwayError("down: no connection")

    findings = readiness.destinations(
        [
            Destination("pacs", "PACS", "h", 104),
            Destination("vna", "", "h", 80, kind="stow", url="http://h/dicom-web"),
            Destination("ris", "", "h", 2575, kind="hl7"),
            Destination("down", "", "h", 2575, kind="hl7"),
        ],
        ask,
    )
    assert [finding.ok for finding in findings] == [True, True, True, False]
    assert [finding.detail.split(";")[0] for finding in findings] == [
        "PACS answers C-ECHO",
        "http://h/dicom-web answers a search (QIDO-RS)",
        "takes a connection",
        "down: no connection",
    ]


def test_archives_and_providers_of_worklists_are_asked_too_and_one_that_is_away_is_named() -> None:
    away = Destination("ris", "RIS", "127.0.0.1", 104)

    def echo(peer: Destination) -> None:
        if peer is away:
            raise DestinationAwayError("ris does not answer")

    there = Destination("pacs", "PACS", "127.0.0.1", 104)
    findings = readiness.archives([there], echo) + readiness.worklists([there, away], echo)
    assert [(one.name, one.ok) for one in findings] == [
        ("archive pacs", True),
        ("worklist pacs", True),
        ("worklist ris", False),
    ]
