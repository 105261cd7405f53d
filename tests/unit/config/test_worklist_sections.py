"""[[ups_sources]], [[archives]], [[modality_worklists]]: a fault names its key, what was seen, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Config, load
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.performing import UpsSource
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.node.performing import sources_of

PEER = {"name": "ris", "ae_title": "RIS", "host": "10.0.0.7", "port": 104}
ELSEWHERE = {
    "archives": [{"name": "vna", "ae_title": "VNA", "host": "h", "port": 104}],
    "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104}],
}


def _load(section: str, **keys: object) -> Config:
    return load(flags={**ELSEWHERE, section: [{**PEER, **keys}]})


NAME = "a name of 1 to 64 letters, digits, dots, _ and - would be right"
TITLE = "an AE title has 1 to 16 printable ASCII characters and no backslash"
CODE = "a code value of 1 to 16 characters without backslash would be right"
WRONG_ANYWHERE = [
    ({"name": "a b"}, f"[0].name: {NAME} (seen: 'a b')"),
    ({"name": "n" * 65}, f"[0].name: {NAME}"),
    ({"ae_title": "SEVENTEEN_LETTERS"}, f"[0].ae_title: AE title is 'SEVENTEEN_LETTERS'; {TITLE}"),
    ({"port": 0}, "[0].port: Input should be greater than or equal to 1 (seen: 0)"),
    ({"port": 70_000}, "[0].port: Input should be less than or equal to 65535 (seen: 70000)"),
    ({"port": "dicom"}, "[0].port: Input should be a valid integer"),
    ({"timeout": 0}, "[0].timeout: Input should be greater than 0 (seen: 0)"),
    ({"poll_seconds": "often"}, "[0].poll_seconds: Input should be a valid number"),
    ({"poll": 1}, "[0].poll: there is no such key"),
    ({"tls": {"enabled": True}}, "[0].tls: needs ca_certificates"),
    ({"tls": {"certificate": "/c.pem"}}, "[0].tls: certificate and private_key belong together"),
    ({"tls": {"passphrase_file": "/p"}}, "[0].tls: passphrase_file is for a private_key, and none is named"),
    (
        {"tls": {"minimum_version": "1.0"}},
        "[0].tls.minimum_version: Input should be '1.2' or '1.3' (seen: '1.0')",
    ),
]
WRONG_SOURCES = [
    ({"host": ""}, "[0]: host is empty; a name or an address would be right"),
    ({"mode": "push"}, "[0].mode: Input should be 'pull' or 'subscribe' (seen: 'push')"),
    ({"poll_seconds": 0}, "[0].poll_seconds: Input should be greater than or equal to 0.1 (seen: 0)"),
    ({"poll_seconds": 86_401}, "[0].poll_seconds: Input should be less than or equal to 86400"),
    (
        {"work_items": []},
        '[0]: work_items is empty; the codes of the items that are this node\'s would be right, as ["110004"]',
    ),
    ({"work_items": "110004"}, "[0].work_items: a list would be right (seen: '110004')"),
    ({"work_items": ["11\\0004"]}, f"[0].work_items[0]: {CODE} (seen: '11\\\\0004')"),
    ({"station_names": ["s" * 17]}, f"[0].station_names[0]: {CODE}"),
    ({"station_classes": ["AI", ""]}, f"[0].station_classes[1]: {CODE} (seen: '')"),
    ({"archive": "pacs"}, "[0].archive: 'pacs' is none of the archives ['vna']"),
    ({"wait_for_delivery": "pacs"}, "[0].wait_for_delivery: a list would be right (seen: 'pacs')"),
    (
        {"wait_for_delivery": ["pacs", "vna"]},
        "[0].wait_for_delivery: ['vna'] are none of the destinations ['pacs']",
    ),
    ({"items_at_a_time": 0}, "[0].items_at_a_time: Input should be greater than or equal to 1 (seen: 0)"),
    ({"input_attempts": 1.5}, "[0].input_attempts: Input should be a valid integer"),
    ({"username": "u" * 65}, "[0].username: String should have at most 64 characters"),
    ({"passcode_file": "/p"}, "[0]: passcode_file is the passcode of a username, and none is set"),
]
WRONG_WORKLISTS = [
    ({"host": ""}, "[0].host: String should have at least 1 character"),
    ({"poll_seconds": 0}, "[0].poll_seconds: Input should be greater than 0 (seen: 0)"),
    (
        {"modalities": ["dx"]},
        "[0].modalities[0]: 1 to 16 capital letters, digits, spaces and _ would be right (seen: 'dx')",
    ),
    ({"station_ae_titles": [""]}, f"[0].station_ae_titles[0]: AE title is ''; {TITLE}"),
    ({"days_back": 31}, "[0].days_back: Input should be less than or equal to 30 (seen: 31)"),
    ({"days_ahead": -1}, "[0].days_ahead: Input should be greater than or equal to 0 (seen: -1)"),
    ({"missed_after_hours": 0}, "[0].missed_after_hours: Input should be greater than 0 (seen: 0)"),
]


@pytest.mark.parametrize(
    ("section", "keys", "told"),
    [
        *(("ups_sources", *wrong) for wrong in [*WRONG_ANYWHERE, *WRONG_SOURCES]),
        *(("modality_worklists", *wrong) for wrong in [*WRONG_ANYWHERE, *WRONG_WORKLISTS]),
    ],
)
def test_what_is_wrong_is_the_one_fault_and_is_told(section: str, keys: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(section, **keys)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{section}{told}")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "a b"}, f"[0].name: {NAME} (seen: 'a b')"),
        ({"how": "ftp"}, "[0].how: Input should be 'c-get', 'c-move' or 'wado' (seen: 'ftp')"),
        ({"port": None}, '[0]: how = "c-get" needs ae_title, host and port'),
        ({"url": "http://h"}, '[0]: url and token_file are for how = "wado"'),
        ({"how": "wado"}, '[0]: how = "wado" needs url, the base of the DICOMweb services'),
        ({"passcode_file": "/p"}, "[0]: passcode_file is the passcode of a username, and none is set"),
        ({"hours": ["at night"]}, "[0].hours[0]: "),
        ({"images_per_minute": 0}, "[0].images_per_minute: Input should be greater than 0 (seen: 0)"),
        ({"how": "c-move", "normals_port": 1}, "[0]: normals_ae_title and normals_port belong together"),
        (
            {"normals_port": 1, "normals_ae_title": "N"},
            '[0]: normals_ae_title and normals_port are for how = "c-move", and it is "c-get"',
        ),
    ],
)
def test_what_is_wrong_with_an_archive_is_told(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags={"archives": [{**PEER, **keys}]})
    (fault,) = caught.value.faults
    assert fault.startswith(f"archives{told}")


@pytest.mark.parametrize("section", ["ups_sources", "modality_worklists"])
@pytest.mark.parametrize("key", sorted(PEER))
def test_what_has_no_default_is_asked_for(section: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags={section: [{name: value for name, value in PEER.items() if name != key}]})
    assert caught.value.faults == [f"{section}[0].{key}: Field required"]


@pytest.mark.parametrize("section", ["ups_sources", "modality_worklists"])
def test_two_of_one_name_are_a_fault(section: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{section}: the names \['ris'\] stand more than once; each needs its own"
    ):
        load(flags={section: [PEER, {**PEER, "port": 105}]})


def test_a_source_is_what_was_configured() -> None:
    tls = {"enabled": True, "ca_certificates": "/ca.pem", "certificate": "/n.pem", "private_key": "/n.key"}
    more = {
        "username": "node",
        "passcode_file": "/passcode",
        "timeout": 7,
        "mode": "subscribe",
        "poll_seconds": 8,
        "work_items": [110004, "X"],
        "station_names": ["NODE"],
        "station_classes": ["AI"],
        "archive": "vna",
        "wait_for_delivery": [],
        "items_at_a_time": 9,
        "input_attempts": 10,
    }
    files = TlsFiles(Path("/n.pem"), Path("/n.key"), None, Path("/ca.pem"), "1.3")
    security = ClientSecurity(files, "ris.example", "node", Path("/passcode"))
    assert sources_of(
        _load("ups_sources", tls={**tls, "server_name": "ris.example", "minimum_version": "1.3"}, **more)
    ) == (
        UpsSource(
            "ris",
            "RIS",
            "10.0.0.7",
            104,
            security,
            7.0,
            "subscribe",
            8.0,
            ("110004", "X"),
            ("NODE",),
            ("AI",),
            "vna",
            (),
            9,
            10,
        ),
    )


def test_without_tls_or_a_name_the_host_is_whom_a_certificate_is_for() -> None:
    (plain,) = sources_of(_load("ups_sources"))
    assert plain.security == ClientSecurity(None, "10.0.0.7")
    assert plain.wait_for_delivery is None
    (secure,) = sources_of(_load("ups_sources", tls={"enabled": True, "ca_certificates": "/ca.pem"}))
    assert secure.security.server_name == "10.0.0.7"
    assert secure.security.tls is not None
