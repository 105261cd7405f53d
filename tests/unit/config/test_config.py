"""The configuration: merged as what was set, validated once, every fault told at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from dicom_node.config import Config, load
from dicom_node.domain.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_repositorys_file_lists_every_key_with_its_default() -> None:
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    assert Config.model_validate(tomllib.loads(text)) == Config()
    section, listed = "", set()
    for line in text.splitlines():
        if header := re.match(r"#? ?\[+([a-z_.]+)\]+$", line):
            section = header[1]
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            listed.add(f"{section}.{key[1]}")
    assert listed == set(_keys(Config, ""))


def _keys(model: type, prefix: str) -> list[str]:
    from dicom_node.config import DicomDestination, Hl7Destination, StowDestination

    keys = []
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        if name == "destinations":
            for kind in (DicomDestination, StowDestination, Hl7Destination):
                keys += _keys(kind, "destinations.")
        elif not prefix and (of := get_args(field.annotation)) and hasattr(of[0], "model_fields"):
            keys += _keys(of[0], f"{prefix}{name}.")
        elif isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            keys += _keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, '[receive]\nae_title = "FILE"\nport = 1\nhost = "10.0.0.1"\n')
    config = load(
        path,
        {"DICOM_NODE__RECEIVE__PORT": "2", "DICOM_NODE__RECEIVE__AE_TITLE": "ENV", "HOME": "/"},
        {"receive": {"port": 3}},
    )
    assert (config.receive.host, config.receive.ae_title, config.receive.port) == ("10.0.0.1", "ENV", 3)


def test_the_environment_can_give_a_table() -> None:
    value = '[{"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104}]'
    config = load(env={"DICOM_NODE__DESTINATIONS": value})
    assert config.destinations[0].ae_title == "PACS"


def test_an_ae_title_of_digits_is_text_from_the_environment_too() -> None:
    assert load(env={"DICOM_NODE__RECEIVE__AE_TITLE": "4711"}).receive.ae_title == "4711"


def test_every_fault_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        '[receive]\nport = 70000\nae_title = "SEVENTEEN_LETTERS"\nprot = 1\n[gather]\nquiet_seconds = "soon"\n'
        '[[destinations]]\nname = "a b"\nae_title = "X"\nhost = "h"\nport = 0\n',
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {"DICOM_NODE____PORT": "1"})
    text = str(caught.value)
    for key in (
        "receive.port",
        "receive.ae_title",
        "receive.prot: there is no such key",
        "gather.quiet_seconds",
        "destinations[0].name",
        "destinations[0].port",
        "DICOM_NODE____PORT",
    ):
        assert key in text
    assert len(caught.value.faults) == 7


def test_two_destinations_of_one_name_are_a_fault() -> None:
    twice = {"name": "pacs", "ae_title": "P", "host": "h", "port": 104}
    with pytest.raises(ConfigError, match=r"pacs.*more than once"):
        load(flags={"destinations": [twice, twice]})


@pytest.mark.parametrize("text", ["[receive", "\xff"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"x\.toml cannot be read as TOML"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path / "none.toml")


def test_a_configuration_cannot_be_changed_after_it_was_validated() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().receive.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("key", ["gather.quiet_seconds", "receive.network_timeout", "queue.lease_seconds"])
def test_a_time_without_end_is_a_fault_and_no_node_that_waits_for_ever(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=key):
        load(_write(tmp_path, f"[{section}]\n{name} = inf\n"))


def test_a_largest_image_without_end_is_a_fault_and_no_scoring_process_that_never_starts(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"score\.maximum_megapixels"):
        load(_write(tmp_path, "[score]\nmaximum_megapixels = inf\n"))


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 3 * *", "'0 3 * *' is no cron expression of five fields"),
        ("0 3 * * noday", "no cron expression of five fields"),
        ("61 3 * * sun", "no cron expression of five fields"),
        ("0 3 * * 0", "'0 3 * * 0' numbers the days of the week; name them"),
    ],
)
def test_a_schedule_that_is_none_or_may_mean_another_day_is_a_fault(cron: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags={"bank": {"schedule": {"cron": cron}}})
    assert "bank.schedule.cron: " in str(caught.value)
    assert told in str(caught.value)
    assert load(flags={"bank": {"schedule": {"cron": "0 3 * * sun"}}}).bank.schedule.rebuild == "marked-normal"


def _destination(**keys: object) -> Config:
    return load(flags={"destinations": [{"name": "vna", **keys}]})


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"kind": "ftp"}, 'destinations[0]: kind is none of "dicom", "stow", "hl7"'),
        ({"kind": "stow"}, "destinations[0].url: Field required"),
        (
            {"kind": "stow", "url": "http://h/", "port": 1},
            "destinations[0].port: there is no such key with kind=stow",
        ),
        ({"kind": "stow", "url": "vna.example"}, "http://host:port/path"),
        ({"kind": "stow", "url": "http://me:secret@h/"}, "secrets belong in files"),
        ({"kind": "stow", "url": "https://h/"}, "tls.enabled = true belong together"),
        ({"kind": "stow", "url": "http://h/", "username": "u"}, "username needs passcode_file"),
        ({"kind": "stow", "url": "http://h/", "username": "u", "token_file": "t"}, "set one of them"),
        ({"kind": "stow", "url": "http://h/", "confirm": "commitment"}, "destinations[0].confirm"),
        ({"kind": "hl7", "host": "h"}, "destinations[0].port: Field required"),
        ({"kind": "hl7", "host": "h", "port": 1, "ae_title": "X"}, "there is no such key with kind=hl7"),
        ({"kind": "hl7", "host": "h", "port": 1, "schedule": ["22-6"]}, "write it as 22:00-06:00"),
        ({"kind": "hl7", "host": "h", "port": 1, "route": {"verdicts": ["above"]}}, "route.verdicts[0]"),
        (
            {"kind": "hl7", "host": "h", "port": 1, "route": {"minimum_percentile": 101}},
            "route.minimum_percentile",
        ),
        ({"kind": "hl7", "host": "h", "port": 1, "max_associations": 0}, "destinations[0].max_associations"),
    ],
)
def test_each_kind_of_destination_has_its_own_keys_and_says_what_is_wrong(
    keys: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _destination(**keys)
    assert told in str(caught.value)
    assert len(caught.value.faults) == 1
    assert ":secret@" not in str(caught.value)


def test_a_destination_of_the_web_has_the_address_of_its_url() -> None:
    from dicom_node.node.opening import destinations_of

    tls = {"enabled": True, "ca_certificates": "ca.pem"}
    config = _destination(kind="stow", url="https://vna.example/dicom-web/", tls=tls, schedule=["22:00-06:00"])
    vna = destinations_of(config)["vna"]
    assert (vna.url, vna.host, vna.port, vna.confirm) == (
        "https://vna.example/dicom-web",
        "vna.example",
        443,
        "find",
    )
    assert (vna.security.server_name, len(vna.limits.windows)) == ("vna.example", 1)


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        ({"host": "cr.example"}, "port is not set"),
        ({"connect_tls": {"enabled": True, "ca_certificates": "ca.pem"}}, "port is not set"),
        ({"port": 104, "tls": "required"}, "needs connect_tls.enabled"),
        ({"port": 0}, "greater than or equal to 1"),
    ],
)
def test_how_a_peer_is_called_must_be_complete_and_as_safe_as_its_own_calls(
    peer: dict[str, object], told: str
) -> None:
    receive = {"peers": [{"ae_title": "CR1", **peer}], "tls": {"enabled": True, "client_certificates": "none"}}
    receive["tls"] |= {"certificate": "node.pem", "private_key": "node.key"}  # type: ignore[operator]
    with pytest.raises(ConfigError, match=told):
        load(flags={"receive": receive})
