"""What every command shares: the ``--config`` option, and errors turned into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.config import Config, load
from dicom_node.domain.errors import ConfigError, NodeError
from dicom_node.observe import logs

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file; by default ./config.toml where there is one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

FAILED, MISCONFIGURED = 1, 2


def read_config(path: Path | None, flags: Mapping[str, Any] | None = None) -> Config:
    """Load the configuration and set up logging by it.

    Raises
    ------
    ConfigError
        With every fault.
    """
    default = Path("config.toml")
    config = load(path or (default if default.is_file() else None), os.environ, flags)
    logs.set_up(config.log.level, config.log.format)
    return config


def moment(text: str, option: str) -> datetime | None:
    """Return the moment that an option names, in local time where it says no other; None for "".

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ConfigError([f"{option}: {text!r} is no moment; write 2026-11-24 or 2026-11-24T07:00"]) from None


@contextmanager
def exit_codes() -> Iterator[None]:
    """Print an error as its message and leave with its exit code."""
    try:
        yield
    except ConfigError as error:
        typer.echo(str(error), err=True)
        sys.exit(MISCONFIGURED)
    except NodeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(FAILED)
    except BrokenPipeError:
        # The reader, such as `head`, has left; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
