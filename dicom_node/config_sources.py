"""Reads what was set: TOML, the environment, flags, one laid over the other. Knows no key and no default."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import ConfigError

_HIDDEN = ".url"
"""The end of keys whose value may hold a password and is therefore never shown."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file sets.

    Raises
    ------
    ConfigError
        If there is none, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"--config: there is no file {path}"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"--config: {path} cannot be read as TOML: {error}"]) from error


def parse(value: str) -> Any:
    """Return the value of an environment variable: JSON where it parses as such, else text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Put a value below nested keys."""
    for key in keys[:-1]:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            branch = tree[key] = {}
        tree = branch
    tree[keys[-1]] = value


def merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lay one nested mapping over another."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = value


def fault(detail: Any) -> str:
    """Return one of pydantic's errors as a sentence that begins with the key."""
    # A part such as "kind=stow" says which of several models was taken, and is no key.
    kinds = [part for part in detail["loc"] if str(part).startswith("kind=")]
    path = [part for part in detail["loc"] if part not in kinds]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if detail["type"] == "extra_forbidden":
        return f"{where}: there is no such key" + "".join(f" with {kind}" for kind in kinds)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "tuple_type":
        message = "a list would be right"
    seen = detail.get("input")
    hidden = isinstance(seen, dict) or not where or where.endswith(_HIDDEN)
    shown = "" if hidden else f" (seen: {seen!r})"
    return f"{where}: {message}{shown}" if where else message
