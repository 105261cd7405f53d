"""No patient attribute is told of what comes by worklists, notices and the pages: marked ones go through all of them.

What is searched is what `test_privacy` searches, and the addresses and file names that there ever were.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from dicom_node.node.opening import now
from tests.e2e.test_privacy import DATES, MARK, NAMES, TEXTS, Heard, banks, leaks, marked, pacs
from tests.hostile import services
from tests.live import LiveNode, running, until
from tests.peers import free_port
from tests.phantoms import part10

__all__ = ["banks"]
pytestmark = pytest.mark.slow

MWL = "1.2.840.10008.5.1.4.31"
GROUPS = (0x0008, 0x0010, 0x0032, 0x0038, 0x0040, 0x0074)
PASSCODE = f"{MARK}-passcode"


def mark(ds: Dataset) -> Dataset:
    """Set every attribute that may name or describe a person, and every date that is not set yet."""
    for number, (tag, (vr, _, _, _, keyword)) in enumerate(DicomDictionary.items()):
        if tag >> 16 not in GROUPS or not keyword:
            continue
        if vr in TEXTS:
            setattr(ds, keyword, f"{MARK}t{number}"[:16])
        elif vr in NAMES:
            setattr(ds, keyword, f"{MARK}n{number}^Given")
        elif vr == "DA" and keyword not in ds:
            setattr(ds, keyword, DATES[0])
    return ds


class Ris:
    """A worklist of scheduled procedures, about marked patients."""

    def __init__(self, studies: list[str]) -> None:
        self.studies = studies
        self.asked = 0
        entity = AE("RIS")
        entity.add_supported_context(MWL)
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self._find)]
        )
        self.port = self.server.server_address[1]

    def _find(self, event: evt.Event) -> Iterator[tuple[Any, Dataset | None]]:
        self.asked += 1
        for study in self.studies:
            step = services.of(Modality="CR", ScheduledProcedureStepStartDate=now().strftime("%Y%m%d"))
            entry = services.of(StudyInstanceUID=study, ScheduledProcedureStepSequence=[mark(step)])
            yield 0xFF00, mark(entry)
        if self.asked % 2:
            failed = services.of(Status=0xC001, ErrorComment=f"{MARK} is unknown")
            yield failed, None


class Manager:
    """A workflow manager and a modality in one; it takes events with a comment that names the patient."""

    def __init__(self) -> None:
        entity = AE("MANAGER")
        entity.add_supported_context(services.EVENT, scu_role=True, scp_role=True)
        self.events = 0
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )
        self.port = self.server.server_address[1]

    def _hear(self, _event: evt.Event) -> tuple[Any, None]:
        self.events += 1
        if self.events == 1:
            return services.of(Status=0x0110, ErrorComment=f"{MARK} is unknown"), None
        return 0, None

    def talk(self, node: LiveNode, study: str) -> None:
        """Say and ask everything that there is about a study, rightly and wrongly."""
        entity = AE("MANAGER")
        for sop_class in (
            services.PUSH,
            services.WATCH,
            services.PULL,
            services.QUERY,
            services.MPPS,
            services.IAN,
        ):
            entity.add_requested_context(sop_class)
        association = entity.associate("127.0.0.1", node.port)
        assert association.is_established
        uid = generate_uid()
        wrong = (
            {"ProcedureStepState": MARK},
            {"ScheduledProcedureStepPriority": MARK},
            {"InputReadinessState": MARK},
            {"ScheduledWorkitemCodeSequence": [services.of(CodeValue=MARK, CodeMeaning=MARK)]},
        )
        for change in wrong:
            status, _ = association.send_n_create(
                mark(services.step(study, **change)), services.PUSH, generate_uid()
            )
            assert status.Status not in (0, None)
        status, _ = association.send_n_create(mark(services.step(study)), services.PUSH, uid)
        assert status.Status == 0
        said = services.of(ReceivingAE="MANAGER", DeletionLock="FALSE")
        for watched in (uid, services.GLOBAL):
            status, _ = association.send_n_action(said, 3, services.PUSH, watched, meta_uid=services.WATCH)
            assert status.Status == 0
        status, ds = association.send_n_get([], services.PUSH, uid, meta_uid=services.PULL)
        assert ds is not None
        assert MARK in str(ds.PatientName)
        keys = services.of(
            PatientName=f"{MARK}*", PatientID="", ProcedureStepState="", AccessionNumber=f"{MARK}*"
        )
        found = [answer for _, answer in association.send_c_find(keys, services.QUERY) if answer is not None]
        assert found
        assert all(MARK in str(one.PatientID) for one in found)
        change = services.of(ProcedureStepState="IN PROGRESS", TransactionUID="1.2.3")
        association.send_n_action(mark(change), 1, services.PUSH, uid, meta_uid=services.PULL)
        association.send_n_set(mark(services.step(study)), services.PUSH, uid, meta_uid=services.PULL)
        reason = mark(services.of(ReasonForCancellation=f"{MARK} died", ContactDisplayName=MARK))
        association.send_n_action(reason, 2, services.PUSH, uid, meta_uid=services.WATCH)
        performed = generate_uid()
        for state in (MARK, "IN PROGRESS"):
            association.send_n_create(mark(services.performed(study, state)), services.MPPS, performed)
        for state in (MARK, "COMPLETED"):
            ended = mark(services.performed(study, state, [generate_uid()]))
            association.send_n_set(ended, services.MPPS, performed)
        association.send_n_create(mark(services.available(study)), services.IAN, generate_uid())
        association.release()


class Reader:
    """A person at the pages and a program at the API, who keep every address that they were led to."""

    def __init__(self, url: str, link: str, token: str) -> None:
        self.addresses: set[str] = set()
        self.wrote: list[str] = []
        self.browser = httpx.Client(base_url=url, headers={"Origin": url}, timeout=60)
        self.program = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.login = {"token": link.partition("token=")[2]}

    def look(self, study: str) -> None:
        """Look at everything and search for the marked patient, rightly and wrongly."""
        for name in (MARK, f"{MARK}^Given", "anna"):
            self.browser.post("/login", data={"name": name, "passcode": PASSCODE})
        assert self.browser.post("/login/link", data=self.login).status_code == 303
        page = self._get("/")
        found = re.search(r'name="csrf" value="([^"]+)"', page)
        assert found is not None
        searched = self.browser.post("/search", data={"term": MARK, "csrf": found[1]})
        self.addresses.add(searched.headers["location"])
        listed = ""

        def listing() -> bool:
            nonlocal listed
            listed = self._get(searched.headers["location"])
            return f"/studies/{study}" in listed

        until(listing, "the marked study is found by the marked name")
        assert MARK in listed
        for path in (f"/studies/{study}", "/banks", "/node", "/keys", f"/studies/{MARK}", f"/nowhere/{MARK}"):
            self._get(path)
        for path in sorted(path for path in self.addresses if path.startswith("/")):
            self.browser.get(path)
        self._ask(study)

    def _ask(self, study: str) -> None:
        ask = self.program
        assert MARK in ask.post("/api/v1/studies/search", json={"search": MARK}).text
        for wrong in (
            {"search": MARK, "order": MARK},
            {"search": MARK, MARK: 1},
            {"search": MARK * 100},
            [MARK],
        ):
            self.wrote.append(ask.post("/api/v1/studies/search", json=wrong).text)
        for path in (
            *("studies", f"studies/{study}", f"studies/{study}/report", "node", "banks", f"studies/{MARK}"),
            f"studies?verdict={MARK}",
        ):
            ask.get(f"/api/v1/{path}")
        answered = ask.get("/dicomweb/studies", params={"PatientName": f"{MARK}*"})
        assert MARK in answered.text
        for path in ("series", "instances", f"studies/{study}/metadata", f"studies/{study}", f"studies/{MARK}"):
            answer = ask.get(f"/dicomweb/{path}", params={"PatientID": MARK} if path == "instances" else {})
            self.addresses.update(re.findall(r'https?://[^"\s]+', answer.text[:100_000]))

    def _get(self, path: str) -> str:
        page = self.browser.get(path)
        self.addresses.update(re.findall(r'(?:href|src|action|data-[a-z-]+)="([^"]*)"', page.text))
        self.addresses.add(page.headers.get("location", ""))
        return page.text


@contextmanager
def names_below(*folders: Path) -> Iterator[set[str]]:
    """Collect the name of every file that is ever seen in these folders while the block runs."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for folder in folders:
                seen.update(str(path.relative_to(folder)) for path in folder.rglob("*"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def test_no_patient_attribute_of_worklists_notices_and_pages_is_told_anywhere(
    banks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, temporary = tmp_path / "node", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    image = marked(1)
    study, scheduled = str(image.StudyInstanceUID), generate_uid()
    (tmp_path / "image.dcm").write_bytes(part10(image))
    ris, manager, port = Ris([study, scheduled]), Manager(), free_port()
    try:
        with pacs() as peer, names_below(folder, temporary) as names:
            peer.status = 0
            log = {"level": "DEBUG", "format": "json"}
            services_on = {"mpps": True, "availability": True, "procedure_steps": True}
            node = LiveNode(
                folder, banks, peer.destination, log=log, receive=services_on,
                gather={"hold_seconds": 5.0}, web={"enabled": True, "port": port},
            )  # fmt: skip
            node.add("receive.peers", ae_title="MANAGER", port=manager.port)
            node.add("receive.peers", ae_title="CR1")
            node.add(
                "modality_worklists",
                name="ris",
                ae_title="RIS",
                host="127.0.0.1",
                port=ris.port,
                poll_seconds=1,
            )
            heard = Heard(node)
            heard.command("bank", "activate", "test")
            with running(node):
                heard.command("user", "add", "anna", "--role", "operator", "--no-passcode")
                link = node.command("user", "link", "anna").stdout.strip()
                reader = Reader(
                    f"http://127.0.0.1:{port}", link, node.command("user", "token", "anna").stdout.strip()
                )
                until(lambda: ris.asked > 3, "the worklist is asked")
                assert node.send(tmp_path / "image.dcm") == [0]
                manager.talk(node, study)
                manager.talk(node, generate_uid())
                until(node.idle, "the study is answered")
                until(lambda: manager.events > 3, "the events are told")
                reader.look(study)
                for command in ("due", "list", "tasks"):
                    heard.command("worklist", command)
                heard.command("worklist", "show", study)
                heard.command("audit")
    finally:
        ris.server.shutdown()
        manager.server.shutdown()
    assert "Query" in heard.said["audit"]
    told = heard.everywhere()
    assert "notice taken" in told["the log"]
    assert '"/studies/{study}"' in told["the log"]
    assert any(name.startswith("store/pictures/") for name in names)
    told["every file name that was seen"] = "\n".join(sorted(names))
    told["the addresses"] = "\n".join(sorted(reader.addresses))
    told["problems that were told"] = "\n".join(reader.wrote)
    assert leaks(told) == {}
