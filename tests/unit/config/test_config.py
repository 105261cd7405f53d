"""The configuration: merged as what was set, validated once, every fault told at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
    from dicom_node.config import DestinationSection

    keys = []
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        if name == "destinations":
            keys += _keys(DestinationSection, "destinations.")
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
