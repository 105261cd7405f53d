"""``serve``, ``receive``, ``work`` and ``check``."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config
from dicom_node.domain.audit import Setting
from dicom_node.domain.errors import ConfigError


def serve(
    config: ConfigPath = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write host and port to this file once associations are accepted."),
    ] = None,
) -> None:
    """Receive, gather, score, report and deliver, until SIGTERM or Ctrl-C."""
    _run(config, receive=True, workers=None, ready_file=ready_file)


def receive(
    config: ConfigPath = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write host and port to this file once associations are accepted."),
    ] = None,
) -> None:
    """Only receive and gather; `dicom-node work` processes do the rest."""
    _run(config, receive=True, workers=0, ready_file=ready_file)


def work(
    config: ConfigPath = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker threads; default [work] workers.")] = None,
) -> None:
    """Only work the queue off: any number of such processes may share one PostgreSQL and one store."""
    _run(config, receive=False, workers=workers)


def web(config: ConfigPath = None) -> None:
    """Serve only the reading worklist, beside `dicom-node receive` and `work` on the same database and store."""
    from dicom_node import node

    with exit_codes():
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with node.open_node(read_config(config)) as opened:
            node.run_web(opened, stop)


def _run(path: Path | None, *, receive: bool, workers: int | None, ready_file: Path | None = None) -> None:
    from dicom_node import node

    def ready(host: str, port: int) -> None:
        if ready_file is not None:
            beside = ready_file.with_name(ready_file.name + ".part")
            try:
                beside.write_text(f"{host} {port}\n", encoding="utf-8")
                beside.replace(ready_file)
            except OSError as error:
                raise ConfigError(
                    [f"--ready-file: {ready_file} cannot be written: {error.strerror or error}"]
                ) from error

    with exit_codes():
        settings = read_config(path)
        count = settings.work.workers if workers is None else workers
        if not receive and count == 0:
            count = 1
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with node.open_node(settings) as opened:
            node.run(opened, stop, receive=receive, workers_count=count, ready=ready)


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every file and hold it against its row; takes its time.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --deep: mend what can be mended, and say what was done.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Validate everything before start: configuration, database, store, banks, and C-ECHO to each destination.

    JSON: a list of {"name", "ok", "detail"}.
    """
    from dicom_node import node
    from dicom_node.cli.keep import deep_findings

    with exit_codes():
        if repair and not deep:
            raise ConfigError(["--repair: mends what --deep finds; say both"])
        settings = read_config(config)
        findings = node.check(settings)
        if repair:
            with node.administering(settings, "check --repair", "store", setting=Setting.RESTRICTED):
                findings += deep_findings(settings, repair=True)
        elif deep:
            findings += deep_findings(settings, repair=False)
        if as_json:
            typer.echo(
                json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings], indent=2)
            )
        else:
            for finding in findings:
                typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}")
        if not all(f.ok for f in findings):
            sys.exit(FAILED)
