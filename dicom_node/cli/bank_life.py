"""``bank rebuild``, ``rollback``, ``compare`` and ``gc``: how one bank follows another."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config

Name = Annotated[str, typer.Argument(help="Name of a bank in [score] banks.")]


def rebuild(
    images: Annotated[Path | None, typer.Option(help="Folder of normals, or a CSV of them.")] = None,
    marked_normal: Annotated[
        bool, typer.Option("--marked-normal", help="Take the studies that people marked normal.")
    ] = False,
    from_pacs: Annotated[
        str,
        typer.Option(
            "--from-pacs",
            help="Fetch normals from an archive of the configuration: 'pacs studies=FILE' (Study Instance UIDs, one a "
            "line) or 'pacs from=2025-01-01 to=2025-03-31 modality=CR,DX most=2000'.",
        ),
    ] = "",
    bank: Annotated[str, typer.Option(help="The active bank to repeat, where several are active.")] = "",
    name: Annotated[str, typer.Option(help="Of the new bank; by default the next of NAME-r1, NAME-r2.")] = "",
    calibration_images: Annotated[
        Path | None, typer.Option(help="Normals that calibrate, where the bank has a separate set for it.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="CSV of path and label (0 normal, 1 abnormal): compares AUROCs.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Activate it although it is worse, or nothing could be decided.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Build the active bank anew from other normals, and activate it unless it is worse.

    JSON: the verdict of `python -m training rebuild`, and "activated".
    """
    from dicom_node import node
    from dicom_node.pipeline.builder import Builder
    from dicom_node.pipeline.rebuild import Wish
    from dicom_node.pipeline.rebuild import rebuild as rebuild_bank

    if (images is not None) + marked_normal + bool(from_pacs) != 1:
        raise typer.BadParameter("say one of --images, --marked-normal and --from-pacs")
    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(settings, "bank rebuild", f"bank/{name or bank or 'active'}"),
    ):
        with node.normals(opened, from_pacs) if from_pacs else nullcontext((images, "")) as (source, told):
            wish = Wish(bank, source, name, calibration_images, labelled, force, told)
            verdict = rebuild_bank(
                settings.score.banks, opened.engine, opened.files, wish, node.now, Builder(show=True)
            )
        if as_json:
            typer.echo(json.dumps(verdict, indent=2))
        elif verdict["state"] == "unchanged":
            typer.echo(f"{verdict['active']} was built from these very files; nothing was built")
        else:
            done = "is active now" if verdict["activated"] else f"was not activated; {verdict['active']} stays"
            than = "" if verdict["state"] == "undecided" else f" than {verdict['active']}"
            typer.echo(f"{verdict['bank']}: {verdict['state']}{than}")
            for reason in verdict["reasons"]:
                typer.echo(f"  {reason}")
            if verdict["labelled"] is None and verdict["new"] is not None:
                typer.echo("  judged by normals alone: a loss of sensitivity would not show (see --labelled)")
            typer.echo(f"{verdict['bank']} {done}")
        if not verdict["activated"] and verdict["state"] != "unchanged":
            sys.exit(FAILED)


def rollback(config: ConfigPath = None) -> None:
    """Use again what was active before, from the next study on."""
    from dicom_node import node
    from dicom_node.pipeline import banks

    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(settings, "bank rollback", "bank/active"),
    ):
        names = banks.roll_back(settings.score.banks, opened.engine, node.now())
        typer.echo(f"active again: {', '.join(names)}")


def compare(
    one: Name,
    other: Name,
    images: Annotated[
        Path | None, typer.Option(help="File or folder of images that both banks score, whatever their rules.")
    ] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show in what two banks differ, and how they score the same images.

    JSON: {"differences": [{"field", ONE, OTHER}], "scores": [{"image", ONE: {"value", "percentile", "above"},
    OTHER: {...}} or {"image", "error"}]}.
    """
    from dicom_node.pipeline import banks

    with exit_codes():
        root = read_config(config).score.banks
        differing = banks.differences(root, one, other)
        scored = list(banks.scores(root, one, other, _files(images))) if images is not None else []
        if as_json:
            typer.echo(json.dumps({"differences": differing, "scores": scored}, indent=2))
            return
        for row in differing:
            typer.echo(f"{row['field']}: {_short(row[one])} | {_short(row[other])}")
        for row in scored:
            told = row.get("error") or " | ".join(
                f"{row[name]['value']:.6g}, percentile {row[name]['percentile']:.1f}"
                f"{', above' if row[name]['above'] else ''}"
                for name in (one, other)
            )
            typer.echo(f"{row['image']}: {told}")


def gc(
    keep: Annotated[int, typer.Option(min=0, help="Keep the banks of so many activations before.")] = 3,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; without this, only say which.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Find banks of no more use (not active, not active lately, no report made with them) and what dead builds left.

    JSON: a list of {"name", "goes", "why"}; the name of what a build left begins with a dot, or with "weights/".
    """
    from dicom_node import node
    from dicom_node.pipeline import banks

    with exit_codes(), node.open_node(settings := read_config(config)) as opened:
        noted = node.administering(settings, "bank gc --remove", "bank/unused") if remove else nullcontext()
        with noted:
            rows = banks.tidy(settings.score.banks, opened.engine, keep, node.now(), remove=remove)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        for row in rows:
            word = ("removed" if remove else "can go") if row["goes"] else "stays"
            typer.echo(f"{word}  {row['name']}: {row['why']}")
        if not remove and any(row["goes"] for row in rows):
            typer.echo("nothing was removed; say --remove to do it")


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return [path for path in sorted(source.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
