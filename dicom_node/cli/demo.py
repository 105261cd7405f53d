"""``demo``: the main job on a fresh machine, from phantoms to reports in a PACS."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from dicom_node.cli import demo_pacs
from dicom_node.cli.options import ConfigPath, exit_codes
from dicom_node.config import load
from dicom_node.domain.errors import ConfigError, SelftestError
from dicom_node.domain.types import Destination

NORMALS, FIRST_SEED, ROWS = 80, 1, 512
STUDIES = (("a normal phantom", 9001, None), ("a phantom with an opacity", 9002, "opacity"))
MARK = ".dicom-node-demo"


def demo(
    config: ConfigPath = None,
    folder: Annotated[Path, typer.Option(help="Folder for everything the demo makes; emptied first.")] = Path(
        "demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep node and PACS running until Ctrl-C.")] = False,
) -> None:
    """Build a bank from phantoms, start node and PACS, send two studies, and print the reports that return."""
    from dicom_node.node import web_address

    with exit_codes(), ExitStack() as stack:
        began = time.monotonic()
        if config is not None:
            load(config)
        _empty(folder)
        say = typer.echo
        say(f"1/5  drawing {NORMALS} normal phantoms (procedural chests, not people)")
        _phantoms(folder / "normals", NORMALS, FIRST_SEED, None)
        pacs = stack.enter_context(demo_pacs.start(folder / "pacs"))
        port = demo_pacs.free_port()
        written = _write_config(config, folder, port, pacs.dicom_port, demo_pacs.free_port())
        say("2/5  building the bank of normals")
        normals = str(folder / "normals" / "manifest.csv")
        # With only 80 normals, holding some out would leave too few to calibrate on.
        _node(
            written, "bank", "build", "--images", normals, "--name", "demo", "--calibration", "leave-one-out",
            "--site", "demo", "--population-description", "procedural phantoms, frontal, DX",
            "--population-modality", "DX", "--thumbnails",
        )  # fmt: skip
        _node(written, "bank", "activate", "demo")
        say(f"3/5  starting the node on 127.0.0.1:{port}; the PACS is {pacs.where}")
        stack.enter_context(_serving(written, folder))
        say("4/5  sending two studies by C-STORE")
        node = Destination("node", load(written).receive.ae_title, "127.0.0.1", port)
        sent = [(what, _send(folder, node, seed, lesion)) for what, seed, lesion in STUDIES]
        say("5/5  waiting for the reports in the PACS")
        for what, study in sent:
            report = _wait(pacs, study, folder)
            say(f"\n===== {what}: the Structured Report as the PACS holds it =====\n{_render(report)}")
        say(f"\ndone in {time.monotonic() - began:.0f} s. Not a medical device; phantoms are not people.")
        say(
            f"  configuration  {written}\n  node's log     {folder / 'node.log'}\n  PACS           {pacs.where}"
        )
        say(f"  look around    dicom-node worklist list --config {written}")
        say(
            f"  worklist       {web_address(load(written))}{'' if keep else ' (while it runs: make demo KEEP=1)'}"
        )
        if keep:
            say(
                "the reading worklist, by a link that lets in once within 15 minutes (again: `user link demo`):"
            )
            _node(written, "user", "add", "demo", "--role", "admin", "--no-passcode")
            _node(written, "user", "link", "demo")
            say(f"running until Ctrl-C; send more with: storescu 127.0.0.1 {port} FILE")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise ConfigError([f"--folder: {folder} is not empty and not a demo's; name another folder"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def _child(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], check=False)  # noqa: S603 - our own modules
    if done.returncode:
        raise SelftestError(f"`python -m {' '.join(arguments)}` ended with exit code {done.returncode}")


def _node(config: Path, *arguments: str) -> None:
    _child("dicom_node", *arguments, "--config", str(config))


def _phantoms(out: Path, count: int, seed: int, lesion: str | None) -> None:
    chosen = ["--lesion", lesion] if lesion else []
    size = ["--count", str(count), "--rows", str(ROWS)]
    _child("training", "phantoms", "--out", str(out), "--seed", str(seed), *size, *chosen)


def _write_config(base: Path | None, folder: Path, port: int, pacs_port: int, web_port: int) -> Path:
    """Write the demo's configuration: the base, if any, under the demo's own ports, folders and destination."""
    root = folder.resolve()
    own: dict[str, dict[str, object]] = {
        "receive": {"host": "127.0.0.1", "port": port, "peers": []},
        "store": {"root": str(root / "store")},
        "db": {"url": f"sqlite:///{root / 'node.db'}"},
        "gather": {"quiet_seconds": 2.0},
        "score": {"banks": str(root / "banks")},
        "web": {"enabled": True, "host": "127.0.0.1", "port": web_port, "tls": {"enabled": False}},
    }
    settings = {} if base is None else tomllib.loads(base.read_text(encoding="utf-8"))
    for section, keys in own.items():
        settings[section] = {**settings.get(section, {}), **keys}
    pacs = {"name": "pacs", "ae_title": demo_pacs.AE_TITLE, "host": "127.0.0.1", "port": pacs_port}
    settings["destinations"] = [pacs]
    path = folder / "config.toml"
    path.write_text("# Written by `dicom-node demo`.\n" + tomli_w.dumps(settings), encoding="utf-8")
    return path


@contextmanager
def _serving(config: Path, folder: Path) -> Iterator[None]:
    ready = folder / "ready"
    command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(config), "--ready-file", str(ready)]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)  # noqa: S603 - our own program
    try:
        deadline = time.monotonic() + 120
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SelftestError(f"the node did not start; its log is {folder / 'node.log'}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _send(folder: Path, node: Destination, seed: int, lesion: str | None) -> str:
    from pydicom import dcmread

    from dicom_node.deliver.scu import send_files

    out = folder / "sent" / str(seed)
    _phantoms(out, 1, seed, lesion)
    path = next(out.glob("*.dcm"))
    send_files(node, [path], calling_ae_title="DEMO-CR")
    return str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def _wait(pacs: demo_pacs.DemoPacs, study: str, folder: Path) -> bytes:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        report = pacs.report_of(study)
        if report is not None:
            return report
        time.sleep(0.2)
    raise SelftestError(f"no report of {study} reached the PACS within 120 s; see {folder / 'node.log'}")


def _render(report: bytes) -> str:
    from dicom_node.report.text import render

    return render(report)
