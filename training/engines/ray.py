"""Embeds on a Ray cluster: each shard is a task of one core. Needs the optional package ray.

Workers read the files by the same paths, so every machine must see them. What a worker is given: paths, the key
of the patient hashes, the recipe, and the network. With the same processor everywhere the vectors are those of
`local` to the byte.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from dicom_node.domain.errors import BankError, NodeError
from dicom_node.score.backbone import Backbone
from training.dataset import Reader
from training.engines.shard import Done, Shard, embed_shard, one_thread


def run(shards: Sequence[Shard], reader: Reader, backbone: Backbone) -> Iterator[tuple[int, Done]]:
    """Yield each shard's number and what became of it, as they are done (see `shard.Engine`).

    Uses the cluster that this process is connected to, else the one that RAY_ADDRESS or ``ray start`` names, else
    one of this machine, which ends with the work.

    Raises
    ------
    BankError
        If ray is not installed or the cluster fails.
    """
    ray = _ray()
    joined = ray.is_initialized()
    try:
        if not joined:
            ray.init(log_to_driver=False)
        yield from _spread(ray, shards, reader, backbone)
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, NodeError):
            raise cause from None
        raise BankError(f"the Ray cluster failed: {str(error)[:500]}") from error
    finally:
        if not joined:
            ray.shutdown()


def _spread(
    ray: Any, shards: Sequence[Shard], reader: Reader, backbone: Backbone
) -> Iterator[tuple[int, Done]]:
    task = ray.remote(num_cpus=1)(_work)
    network = ray.put(backbone)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: dict[Any, int] = {}
    for number, shard in enumerate(shards):
        waiting[task.remote(list(shard), reader, network)] = number
        if len(waiting) >= most:
            yield _first(ray, waiting)
    while waiting:
        yield _first(ray, waiting)


def _first(ray: Any, waiting: dict[Any, int]) -> tuple[int, Done]:
    """Wait for a task that is done, and take it off those waiting."""
    (ready,), _ = ray.wait(list(waiting), num_returns=1)
    done: Done = ray.get(ready)
    return waiting.pop(ready), done


def _work(shard: Shard, reader: Reader, backbone: Backbone) -> Done:
    one_thread()
    return embed_shard(shard, reader, backbone)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BankError("--engine ray needs the package ray: install dicom-node[ray]") from error
