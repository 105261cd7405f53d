"""A node as its own process, as a site runs it: configuration file, `serve`, signals, its own commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_node.deliver.scu import send_files
from dicom_node.domain.types import Destination
from tests.peers import free_port
from tests.phantoms import chest_dataset, part10

DEADLINE = 180.0
SHAPE = (192, 160)


def build_bank(root: Path, folder: Path, normals: int = 30, views: str | None = "squash") -> None:
    """Build the bank "test" from small phantoms by the product's own command."""
    images = folder / "normals"
    images.mkdir(parents=True)
    for seed in range(1000, 1000 + normals):
        (images / f"{seed}.dcm").write_bytes(part10(chest_dataset(seed=seed, shape=SHAPE)))
    command = ["build", "--images", str(images), "--out", str(root), "--name", "test"]
    command += ["--views", views] if views else []
    subprocess.run([sys.executable, "-m", "training", *command], check=True, capture_output=True)


class LiveNode:
    """Starts, stops and kills one node; asks it what it knows by its own commands."""

    def __init__(self, folder: Path, banks: Path, pacs: Destination, **settings: dict[str, Any]) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "config.toml"
        values: dict[str, dict[str, Any]] = {
            "receive": {"port": self.port},
            "store": {"root": str(folder / "store"), "reserve_megabytes": 0},
            "db": {"url": f"sqlite:///{folder / 'node.db'}"},
            "gather": {"quiet_seconds": 1.0, "open_association_seconds": 5.0, "poll_seconds": 0.2},
            "queue": {"lease_seconds": 5.0, "poll_seconds": 0.1, "backoff_seconds": 0.5},
            "score": {"banks": str(banks)},
            "log": {"format": "json"},
        }
        for section, keys in settings.items():
            values.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in values.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        lines += ["[[destinations]]", f'name = "{pacs.name}"', f'ae_title = "{pacs.ae_title}"']
        lines += [f'host = "{pacs.host}"', f"port = {pacs.port}"]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def add(self, section: str, **keys: Any) -> None:
        """Add one of several sections of a name, such as an archive, to the configuration."""
        lines = [f"[[{section}]]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        with self.config.open("a", encoding="utf-8") as config:
            config.write("\n".join(lines) + "\n")

    @property
    def address(self) -> Destination:
        return Destination("node", "DICOMNODE", "127.0.0.1", self.port)

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    def start(self, *, wait: bool = True) -> None:
        """Start it, and unless told otherwise wait until it listens."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self.process = process = self.launch(ready)
        if not wait:
            return
        until(lambda: ready.exists() or process.poll() is not None, "the node listens")
        assert process.poll() is None, self.log.read_text()[-3000:]

    def launch(self, ready: Path) -> subprocess.Popen[bytes]:
        """Return a new process that writes the file `ready` when it listens."""
        command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)]
        with self.log.open("ab") as log:
            return subprocess.Popen([*command, "--ready-file", str(ready)], stderr=log)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the product's commands with this node's configuration."""
        command = [sys.executable, "-m", "dicom_node", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def json(self, *arguments: str) -> Any:
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, *paths: Path, calling: str = "CR1") -> list[int]:
        return send_files(self.address, list(paths), calling_ae_title=calling)

    def idle(self) -> bool:
        """Say whether nothing is left to do for any study."""
        return all(
            not row["waiting"] and not row["is_open"]
            for row in self.json("worklist", "list", "--limit", "1000")
        )


@contextmanager
def running(node: LiveNode) -> Iterator[LiveNode]:
    """Run the node inside the block."""
    node.start()
    try:
        yield node
    finally:
        assert node.process is not None
        if node.process.poll() is None:
            node.stop()


def until(holds: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait until something holds that another process brings about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s it does not hold that {what}"
        time.sleep(0.1)
