"""Every command takes --config, the demo too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from dicom_node.cli import demo
from dicom_node.cli.main import app
from dicom_node.config import load


def _commands(command: Any, name: str = "") -> dict[str, Any]:
    inside = getattr(command, "commands", None)
    if inside is None:
        return {name: command}
    return {
        path: found
        for key, sub in inside.items()
        for path, found in _commands(sub, f"{name} {key}".strip()).items()
    }


def test_every_command_takes_a_configuration() -> None:
    commands = _commands(typer.main.get_command(app))
    assert len(commands) > 15
    without = [
        name for name, found in commands.items() if "--config" not in [o for p in found.params for o in p.opts]
    ]
    assert without == []


def test_the_demo_keeps_a_sites_own_settings_under_its_own_ports_and_folders(tmp_path: Path) -> None:
    base = tmp_path / "site.toml"
    base.write_text(
        '[receive]\nae_title = "SITE"\nport = 104\npeers = [{ ae_title = "CR1" }]\n'
        '[report]\ninstitution_name = "Klinik"\n'
        '[[destinations]]\nname = "vna"\nae_title = "VNA"\nhost = "10.0.0.1"\nport = 104\n',
        encoding="utf-8",
    )
    config = load(demo._write_config(base, tmp_path, 1104, 1105, 8081))
    assert (config.receive.ae_title, config.receive.port, config.receive.peers) == ("SITE", 1104, ())
    assert config.report.institution_name == "Klinik"
    assert [(d.host, d.port) for d in config.destinations] == [("127.0.0.1", 1105)]
    assert config.store.root == tmp_path / "store"
