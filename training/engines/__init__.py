"""Where embedding runs: here, or on a cluster. Either gives the same vectors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.engines.shard import Engine

ENGINES = ("local", "ray")


def engine(name: str) -> Engine:
    """Return the engine of that name, one of `ENGINES`."""
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}; there are {ENGINES}")
    run: Engine = import_module(f"training.engines.{name}").run
    return run
