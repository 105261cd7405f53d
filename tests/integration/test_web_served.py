"""The reading worklist as a node serves it: beside receiving, or alone; who comes in stands in the audit trail."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from dicom_node import node
from dicom_node.config import Config, load
from dicom_node.domain.reading import Role
from dicom_node.node.opening import Node
from dicom_node.node.web import serving_beside, serving_web, web_address
from dicom_node.web.app import host_names
from tests.peers import free_port

PASSCODE = "correct horse"


@pytest.fixture
def config(tmp_path) -> Config:
    (tmp_path / "banks").mkdir()
    return load(
        flags={
            "store": {"root": str(tmp_path / "store"), "reserve_megabytes": 0},
            "db": {"url": f"sqlite:///{tmp_path / 'node.db'}"},
            "score": {"banks": str(tmp_path / "banks")},
            "web": {"enabled": True, "port": free_port()},
        }
    )


@pytest.fixture
def opened(config) -> Iterator[Node]:
    with node.open_node(config) as opened:
        yield opened


def log_in(client: httpx.Client) -> httpx.Response:
    return client.post(
        "/login", data={"name": "ann", "passcode": PASSCODE}, headers={"Origin": str(client.base_url)}
    )


def test_who_logs_in_fails_and_leaves_is_in_the_trail_and_no_secret_is_in_a_file(opened, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "dicom_node")
    caplog.set_level(logging.WARNING, "httpcore")  # of the browser's side
    node.people(opened).put("ann", Role.VIEWER, PASSCODE)
    with serving_web(opened) as address, httpx.Client(base_url=address.rstrip("/")) as client:
        client.post("/login", data={"name": "ann", "passcode": "marked-wrong"})
        assert client.get("/").status_code == 303
        assert log_in(client).status_code == 303
        page = client.get("/")
        assert page.status_code == 200
        token = client.cookies["dicom-node"]
        csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)[1]
        assert client.post("/logout", data={"csrf": csrf}).status_code == 303
    lines = [json.loads(line) for line in (tmp_path / "store/audit/audit.jsonl").read_text().splitlines()]
    told = [json.dumps(line) for line in lines]
    assert [("Login" in line, "Logout" in line) for line in told if "110114" in line] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert len([line for line in told if "110112" in line]) == 1  # the list was asked for
    written = (
        b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) + caplog.text.encode()
    )
    assert not [secret for secret in (PASSCODE, token, "marked-wrong") if secret.encode() in written]


@pytest.mark.parametrize(
    ("web", "address"),
    [
        ({}, "http://127.0.0.1:8080/"),
        ({"host": "0.0.0.0"}, "http://localhost:8080/"),  # noqa: S104
        ({"host": "::"}, "http://localhost:8080/"),
        ({"host": "::1"}, "http://[::1]:8080/"),
        ({"host": "0.0.0.0", "host_names": ["list.example"]}, "http://list.example:8080/"),  # noqa: S104
        ({"host_names": ["list.example"], "trusted_proxies": ["127.0.0.1"]}, "https://list.example/"),
    ],
)
def test_a_link_leads_to_a_name_that_the_pages_answer_to(web, address):
    config = load(flags={"web": web})
    assert web_address(config) == address
    assert urlsplit(address).hostname in host_names(config.web)


def test_a_port_that_is_taken_does_not_keep_images_out(opened, config, caplog):
    with socket.create_server(("127.0.0.1", config.web.port)):
        inside = False
        with serving_beside(opened):
            inside = True
        assert inside
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.message == "the reading worklist is not served; receiving goes on"
    assert "choose another port, or stop what listens there" in told.reason


def test_the_pages_run_as_a_process_of_their_own_and_end_when_told(opened, config, tmp_path):
    node.people(opened).put("ann", Role.VIEWER, PASSCODE)
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{config.store.root}"\nreserve_megabytes = 0\n[db]\nurl = "{config.db.url}"\n'
        f'[score]\nbanks = "{config.score.banks}"\n[web]\nport = {config.web.port}\n[log]\nformat = "json"\n',
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dicom_node", "web", "--config", str(path)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = next(found for line in process.stderr if (found := json.loads(line).get("address")))
        with httpx.Client(base_url=address.rstrip("/")) as client:
            assert client.get("/health").json() == {"status": "ok"}
            log_in(client)
            assert client.get("/").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
