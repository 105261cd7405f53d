"""How the self-test reaches the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Config, load
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.security import ClientSecurity
from dicom_node.node.itself import itself
from tests.authority import Authority


def _config(tmp_path: Path, **receive: Any) -> Config:
    node = Authority(tmp_path / "ca").files("node.example")
    tls = {"enabled": True, "certificate": node.certificate, "private_key": node.private_key}
    tls |= {"ca_certificates": node.ca_certificates, **receive.pop("tls", {})}
    return load(flags={"receive": {"host": "0.0.0.0", **receive, "tls": tls}})  # noqa: S104 - compared, not bound


def test_it_takes_the_plain_port_where_there_is_one(tmp_path):
    found = itself(_config(tmp_path, port=104))
    assert (found.host, found.port, found.security) == ("127.0.0.1", 104, ClientSecurity())


def test_it_takes_tls_under_the_nodes_own_name_where_there_is_nothing_else(tmp_path):
    config = _config(tmp_path, plain=False)
    found = itself(config, "check", tmp_path / "passcode")
    assert (found.port, found.security.tls) == (2762, config.receive.tls.files)
    assert found.security.server_name == "node.example"
    assert (found.security.username, found.security.passcode_file) == ("check", tmp_path / "passcode")


@pytest.mark.parametrize(
    ("receive", "fault"),
    [
        ({"port": 0}, r"receive\.port: is 0"),
        ({"plain": False, "tls": {"port": 0}}, r"receive\.tls\.port: is 0"),
        (
            {"plain": False, "tls": {"ca_certificates": None, "client_certificates": "none"}},
            r"receive\.tls\.ca_certificates: is not set",
        ),
    ],
)
def test_a_node_that_cannot_be_reached_from_here_says_why(tmp_path, receive, fault):
    with pytest.raises(ConfigError, match=fault):
        itself(_config(tmp_path, **receive))
