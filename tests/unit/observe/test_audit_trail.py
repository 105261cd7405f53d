"""The trail keeps every event, through full disks and several processes, and sends each on when the server is there."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_node.domain.audit import AssociationOpened, AuditLogUsed, Party, StudyAccessed
from dicom_node.domain.errors import DatabaseError
from dicom_node.observe.audit import Forwarder, Trail
from dicom_node.observe.audit_file import AuditFile, Forwarded, Position
from dicom_node.observe.audit_message import AuditSource
from dicom_node.observe.audit_reading import one_line, selected
from tests.fakes import ManualClock

AT = datetime(2026, 1, 2, tzinfo=UTC)
SOURCE = AuditSource("N", "", "DICOMNODE", "host:1", "host")


@pytest.fixture
def file(tmp_path: Path) -> AuditFile:
    return AuditFile(tmp_path / "audit" / "audit.jsonl", 1_000_000, 3)


def users(file: AuditFile) -> list[str]:
    return [json.loads(line)["ActiveParticipant"][0]["UserID"] for line, _ in file.lines()]


class Disk:
    """fsync that fails while the disk is full."""

    def __init__(self) -> None:
        self.full = False

    def fsync(self, descriptor: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)


class Server:
    """A syslog server that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.got: list[str] = []

    def send(self, told: Any) -> None:
        if self.away:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        self.got.append(told["ActiveParticipant"][0]["UserID"])


def test_file_and_folder_are_the_owners_alone_whatever_the_umask(file: AuditFile) -> None:
    before = os.umask(0)
    try:
        file.append(b"{}")
        file.note_forwarded(Forwarded(Position()))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {0o600}


def test_a_file_made_open_by_someone_is_closed(file: AuditFile) -> None:
    file.append(b"{}")
    file.path.chmod(0o644)
    file.append(b"{}")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_full_segments_are_numbered_on_and_the_oldest_go(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl", 40, 2)
    for number in range(10):
        file.append(b'{"a": "%024d"}' % number)
    names = [path.name for _, path in file.segments()]
    assert names == ["audit.000008.jsonl", "audit.000009.jsonl", "audit.jsonl"]
    assert [int(json.loads(line)["a"]) for line, _ in file.lines()] == [7, 8, 9]


def test_nothing_that_was_not_sent_on_is_removed(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl", 40, 1, forwarding=True)
    for number in range(5):
        file.append(b'{"a": "%024d"}' % number)
    assert [int(json.loads(line)["a"]) for line, _ in file.lines()] == [0, 1, 2, 3, 4]
    last = [position for _, position in file.lines()][-1]
    file.note_forwarded(Forwarded(last))
    file.append(b'{"a": "%024d"}' % 5)
    assert [int(json.loads(line)["a"]) for line, _ in file.lines()] == [4, 5]


def test_who_reads_while_files_become_full_misses_no_line_and_goes_on_where_he_was(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl", 100, 100, forwarding=True)

    def add(first: int, behind: int) -> None:
        for number in range(first, behind):
            file.append(b'{"a": "%024d"}' % number)

    add(0, 8)
    reading = file.lines()
    found = [next(reading) for _ in range(3)]
    add(8, 12)
    found += reading
    found += file.lines(found[-1][1])
    assert [int(json.loads(line)["a"]) for line, _ in found] == list(range(12))


def test_a_full_segment_that_cannot_be_set_aside_is_told_as_what_it_is(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl", 40, 3)
    file.append(b'{"a": "%024d"}' % 1)
    (tmp_path / "audit.000001.jsonl" / "in the way").mkdir(parents=True)
    file.segments = lambda: [(1, file.path)]  # type: ignore[method-assign]
    with pytest.raises(IsADirectoryError):
        file.append(b'{"a": "%024d"}' % 2)


def test_a_line_that_a_loss_of_power_cut_off_swallows_no_other(file: AuditFile) -> None:
    file.append(b'{"a": 1}')
    with file.path.open("ab") as torn:
        torn.write(b'{"a": 2, "b')
    file.append(b'{"a": 3}')
    assert [line for line, _ in file.lines()] == [b'{"a": 1}', b'{"a": 2, "b', b'{"a": 3}']


def test_lines_of_several_processes_at_once_are_all_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    program = (
        "import sys; from pathlib import Path; from dicom_node.observe.audit_file import AuditFile\n"
        "file = AuditFile(Path(sys.argv[1]), 500, 1000)\n"
        "for n in range(60): file.append(b'{\"%s\": %d}' % (sys.argv[2].encode(), n))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    file = AuditFile(path, 500, 1000)
    assert len(file.segments()) > 1
    told = [next(iter(json.loads(line).items())) for line, _ in file.lines()]
    assert sorted(told) == [(name, number) for name in "abc" for number in range(60)]
    assert [n for name, n in told if name == "a"] == list(range(60)), "each one's lines are in order"


def test_a_trail_that_cannot_be_written_stops_nobody_and_catches_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    file = AuditFile(tmp_path / "audit.jsonl", 1_000_000, 1, fsync=disk.fsync)
    trail = Trail(file, SOURCE)
    trail(AuditLogUsed(AT, "one"))
    disk.full = True
    trail(AuditLogUsed(AT, "two"))
    trail(AuditLogUsed(AT, "three"))
    assert users(file) == ["one"]
    assert [r.message for r in caplog.records] == ["the audit trail cannot be written, the node goes on"]
    disk.full = False
    trail(AuditLogUsed(AT, "four"))
    assert users(file) == ["one", "two", "three", "four"]
    assert caplog.records[-1].message == "the audit trail is written again"


def test_accepted_associations_are_left_out_where_only_rejections_are_wanted(file: AuditFile) -> None:
    Trail(file, SOURCE, accepted=False)(AssociationOpened(AT, Party("A", "10.0.0.1"), "X"))
    assert users(file) == []


def test_the_patient_is_asked_for_by_study_and_may_be_unknown(file: AuditFile) -> None:
    def patient_of(study: str) -> str:
        if study == "1.9":
            raise DatabaseError("away")
        return f"P-{study}"

    trail = Trail(file, SOURCE, patient_of=patient_of)
    trail(StudyAccessed(AT, "me", "1.2"))
    trail(StudyAccessed(AT, "me", "1.9"))
    objects = [json.loads(line)["ParticipantObjectIdentification"] for line, _ in file.lines()]
    assert [[o["ParticipantObjectID"] for o in one] for one in objects] == [["1.2", "P-1.2"], ["1.9"]]


@pytest.fixture
def sending(file: AuditFile) -> Callable[[Server], Forwarder]:
    return lambda server: Forwarder(file, server.send, ManualClock())


def test_what_was_written_while_the_server_was_away_is_sent_once_it_is_back(
    file: AuditFile, sending: Callable[[Server], Forwarder], caplog: pytest.LogCaptureFixture
) -> None:
    server, trail = Server(), Trail(file, SOURCE)
    forwarder = sending(server)
    trail(AuditLogUsed(AT, "one"))
    forwarder.step()
    server.away = True
    trail(AuditLogUsed(AT, "two"))
    waits = [forwarder.step() for _ in range(12)]
    trail(AuditLogUsed(AT, "three"))
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == waits[-1] == 300.0
    assert file.forwarded().fault == "Connection refused"
    assert file.forwarded().since.startswith("2026-01-02T03:04:05")
    assert [r.message for r in caplog.records] == ["the audit trail cannot be sent on and is kept until it can"]
    server.away = False
    restarted = sending(server)
    restarted.step()
    assert server.got == ["one", "two", "three"]
    assert file.forwarded().fault == ""


def test_each_line_is_sent_through_rotations_too(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl", 700, 1, forwarding=True)
    server, trail = Server(), Trail(file, SOURCE)
    forwarder = Forwarder(file, server.send, ManualClock())
    for number in range(9):
        trail(AuditLogUsed(AT, f"u{number}"))
        if number in {2, 3, 8}:
            forwarder.step()
    assert server.got == [f"u{number}" for number in range(9)]
    assert file.segments()[-1][0] > 4


def test_a_damaged_line_holds_nothing_up(file: AuditFile, sending: Callable[[Server], Forwarder]) -> None:
    server, trail = Server(), Trail(file, SOURCE)
    trail(AuditLogUsed(AT, "one"))
    typed = {"EventID": 7, "EventDateTime": AT.isoformat(), "EventOutcomeIndicator": "0"}
    torn = json.dumps({"EventIdentification": typed}).encode()
    for damaged in (b"{torn", b"[]", b"\xff\xfe", b"{}", torn):
        file.append(damaged)
    trail(AuditLogUsed(AT, "two"))
    sending(server).step()
    assert server.got == ["one", "two"]
    assert ["one" in one_line(told) or "two" in one_line(told) for told in selected(file)] == [True, True]


def test_only_one_process_sends(file: AuditFile, sending: Callable[[Server], Forwarder]) -> None:
    server = Server()
    Trail(file, SOURCE)(AuditLogUsed(AT, "one"))
    with file.sole_forwarder() as mine:
        assert mine
        sending(server).step()
        assert server.got == []
    sending(server).step()
    assert server.got == ["one"]


def test_what_comes_before_the_end_is_sent_before_the_end(
    file: AuditFile, sending: Callable[[Server], Forwarder]
) -> None:
    server, trail = Server(), Trail(file, SOURCE)
    stop = threading.Event()
    thread = threading.Thread(target=sending(server).run, args=(stop,))
    thread.start()
    trail(AuditLogUsed(AT, "last"))
    stop.set()
    thread.join(30)
    assert server.got == ["last"]
