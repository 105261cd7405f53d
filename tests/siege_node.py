"""A node whose life begins within milliseconds, so that many lives fit into a minute: forked, not started.

Run as a script it imports everything and forks a node for each configuration that it is named on standard input. The
node is built as `dicom-node serve` builds it, but for its scoring process, which is `siege_scorer`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.live import LiveNode

_ROOT = Path(__file__).resolve().parents[1]
_ALL = (
    "cli.options", "deliver.commitment", "deliver.find", "deliver.scu", "pipeline.confirm", "pipeline.dispatch",
    "pipeline.process", "pipeline.schedule", "pipeline.worker", "receive.scp", "report.sr", "score.apart",
)  # fmt: skip
"""Where a node imports a room only when it uses it."""


class Life:
    """One forked node, as `subprocess.Popen` would show it."""

    def __init__(self, mother: subprocess.Popen[bytes], pid: int) -> None:
        self._mother = mother
        self.pid = pid
        self._status: int | None = None

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self._ask("poll")

    def wait(self, _timeout: float = 0.0) -> int:
        status = self._ask("wait")
        assert status is not None
        return status

    def _ask(self, what: str) -> int | None:
        if self._status is None:
            answer = _asked(self._mother, f"{what} {self.pid}")
            self._status = None if answer == "alive" else int(answer)
        return self._status


class ForkedNode(LiveNode):
    """A LiveNode whose lives are forked from one process; `close` ends that."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        with self.log.open("ab") as log:
            self._mother = subprocess.Popen(
                [sys.executable, "-m", "tests.siege_node"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def launch(self, ready: Path) -> Life:
        return Life(self._mother, int(_asked(self._mother, f"fork {self.config} {ready}")))

    def close(self) -> None:
        self._mother.kill()
        self._mother.wait()


def _asked(mother: subprocess.Popen[bytes], line: str) -> str:
    assert mother.stdin is not None
    assert mother.stdout is not None
    mother.stdin.write(f"{line}\n".encode())
    mother.stdin.flush()
    return mother.stdout.readline().decode().strip()


def _live(config: Path, ready_file: Path) -> NoReturn:
    from dicom_node import node
    from dicom_node.cli.options import read_config

    def ready(host: str, port: int) -> None:
        ready_file.write_text(f"{host} {port}\n", encoding="utf-8")

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with node.open_node(read_config(config)) as opened:
        scoring = (sys.executable, "-m", "tests.siege_scorer")
        node.run(opened, stop, receive=True, workers_count=1, ready=ready, scoring_process=scoring)
    os._exit(0)


def _serve() -> None:
    """Fork, and tell how each life ended: all that the parent cannot do for processes that are not its children."""
    for line in sys.stdin:
        what, *arguments = line.split()
        if what == "fork":
            answer = os.fork()
            if answer == 0:
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 0)
                os.dup2(nothing, 1)
                _live(*map(Path, arguments))
            print(answer, flush=True)
        else:
            pid, status = os.waitpid(int(arguments[0]), os.WNOHANG if what == "poll" else 0)
            print(os.waitstatus_to_exitcode(status) if pid else "alive", flush=True)


if __name__ == "__main__":
    for name in _ALL:
        import_module(f"dicom_node.{name}")
    _serve()
