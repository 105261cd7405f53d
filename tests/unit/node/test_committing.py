from __future__ import annotations

from pathlib import Path

from dicom_node.config import load
from dicom_node.domain.types import Destination
from dicom_node.node.committing import address_of

PEERS = [
    {"ae_title": "CR1", "addresses": ["10.0.5.21"], "port": 104},
    {"ae_title": "CR1", "addresses": ["10.0.5.0/24"], "port": 105, "host": "cr.example"},
    {"ae_title": "CR2"},
    {"ae_title": "PACS", "port": 106},
]
DESTINATIONS = [
    {"name": "pacs", "ae_title": "PACS", "host": "pacs.example", "port": 11112},
    {"name": "second", "ae_title": "SECOND", "host": "second.example", "port": 11113},
]
CONFIG = load(flags={"receive": {"peers": PEERS}, "destinations": DESTINATIONS})


def called(ae_title: str, address: str) -> tuple[str, int] | None:
    found = address_of(CONFIG, ae_title, address)
    assert found is None or found.ae_title == ae_title
    return None if found is None else (found.host, found.port)


def test_a_peer_is_called_where_it_calls_from_or_where_the_configuration_says() -> None:
    assert called("CR1", "10.0.5.21") == ("10.0.5.21", 104)
    assert called("CR1", "10.0.5.22") == ("cr.example", 105)
    assert called("PACS", "10.0.0.5") == ("10.0.0.5", 106)


def test_a_destination_is_called_as_for_reports() -> None:
    assert called("SECOND", "10.0.0.6") == ("second.example", 11113)


def test_a_peer_whose_port_is_unknown_is_not_called() -> None:
    assert called("CR2", "10.0.5.30") is None
    assert called("CR1", "10.0.6.1") is None, "it is not known from there"
    assert called("STRANGER", "10.0.5.30") is None


def test_a_peer_is_called_over_tls_where_that_is_configured() -> None:
    tls = {"enabled": True, "ca_certificates": "ca.pem"}
    peers = [{"ae_title": "CR1", "port": 2762, "connect_tls": tls}]
    found = address_of(load(flags={"receive": {"peers": peers}}), "CR1", "10.0.5.21")
    assert isinstance(found, Destination)
    assert found.security.tls is not None
    assert (found.security.tls.ca_certificates, found.security.server_name) == (Path("ca.pem"), "10.0.5.21")
