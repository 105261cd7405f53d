"""``bank``: the administrator's hand on the banks of normals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config

app = typer.Typer(no_args_is_help=True, help="Build, list, show, verify and activate banks of normals.")
BUILDERS = {"deep-knn": "build", "salad": "train-salad", "aligned-knn": "build-aligned"}
Method = Annotated[Literal["deep-knn", "salad", "aligned-knn"], typer.Option(help="Kind of bank.")]
Names = Annotated[list[str], typer.Argument(help="Names of banks in [score] banks.")]
Name = Annotated[str, typer.Argument(help="Name of a bank in [score] banks.")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def build(context: typer.Context, config: ConfigPath = None, method: Method = "deep-knn") -> None:
    """Build a bank in a process of its own, so that serving goes on: the options of `python -m training build`.

    With --method salad a SALAD bank is trained: the options of `python -m training train-salad`. With --method
    aligned-knn: those of `python -m training build-aligned`.

    For example: dicom-node bank build --images NORMALS --name chest-2026
    """
    from dicom_node import node

    with exit_codes():
        settings = read_config(config)
        settings.score.banks.mkdir(parents=True, exist_ok=True)
        arguments = build_arguments(context.args, settings.score.banks)
        command = [sys.executable, "-m", "training", BUILDERS[method], *arguments]
        with node.administering(settings, "bank build", f"bank/{_named(context.args)}"):
            sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own program, the admin's arguments


def _named(given: list[str]) -> str:
    """Return the name that the builder is told to give its bank."""
    words = [part for word in given for part in word.split("=", 1)]
    return words[words.index("--name") + 1] if "--name" in words[:-1] else "unnamed"


def build_arguments(given: list[str], banks: Path) -> list[str]:
    """Return the builder's arguments: those given, and where banks belong unless they say it themselves."""
    says = any(word in {"--out", "--help"} or word.startswith("--out=") for word in given)
    return given if says else [*given, "--out", str(banks)]


@app.command("list")
def list_(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List banks; the active ones are marked.

    JSON: a list of {"name", "hash", "active", "normal_images", "created_at", "population"}; a damaged bank
    has {"name", "active", "error"}.
    """
    from dicom_node.pipeline import admin

    with exit_codes():
        root = read_config(config).score.banks
        rows = admin.list_banks(root)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        for row in () if as_json else rows:
            told = row.get("error") or (
                f"{row['normal_images']} normal images, {row['population']}, built {row['created_at']}, "
                f"hash {str(row['hash'])[:12]}"
            )
            typer.echo(f"{'*' if row['active'] else ' '} {row['name']}  {told}")
        if not rows and not as_json:
            typer.echo("no bank; build one with `dicom-node bank build --images DIR --name NAME`")
        if fault := admin.active_fault(root):
            typer.echo(f"error: {fault}", err=True)


@app.command()
def show(name: Name, config: ConfigPath = None) -> None:
    """Print a bank's manifest as JSON."""
    from dicom_node.score.bank_store import BankStore

    with exit_codes():
        typer.echo(BankStore(read_config(config).score.banks).manifest(name).to_json().decode())


@app.command()
def verify(name: Name, config: ConfigPath = None) -> None:
    """Compare every file of a bank with its hash."""
    from dicom_node.score.bank_store import BankStore

    with exit_codes():
        bank_hash = BankStore(read_config(config).score.banks).verify(name)
        typer.echo(f"{name}: every file is what its hash says; bank hash {bank_hash}")


@app.command()
def activate(names: Names, config: ConfigPath = None) -> None:
    """Use these banks from the next study on; a running node needs no restart.

    An image is scored by the first of them, of each kind, whose population admits it.
    """
    from dicom_node import node
    from dicom_node.pipeline import admin

    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(settings, "bank activate", f"bank/{','.join(names)}"),
    ):
        hashes = admin.activate_banks(settings.score.banks, names, opened.engine, node.now)
        for name, bank_hash in hashes.items():
            typer.echo(f"{name} is active; bank hash {bank_hash}")
