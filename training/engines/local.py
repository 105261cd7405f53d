"""Embeds on this machine: as many shards at a time as there are cores, each in one thread."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from dicom_node.score.backbone import Backbone
from training.dataset import Reader
from training.engines.shard import Done, Shard, embed_shard, one_thread


def run(shards: Sequence[Shard], reader: Reader, backbone: Backbone) -> Iterator[tuple[int, Done]]:
    """Yield each shard's number and what became of it, in their order (see `shard.Engine`)."""
    workers = len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    one_thread()
    try:
        with ThreadPoolExecutor(workers, initializer=one_thread) as pool:
            waiting: deque[tuple[int, Future[Done]]] = deque()
            for number, shard in enumerate(shards):
                waiting.append((number, pool.submit(embed_shard, shard, reader, backbone)))
                if len(waiting) > workers:
                    first, done = waiting.popleft()
                    yield first, done.result()
            for number, done in waiting:
                yield number, done.result()
    finally:
        torch.set_num_threads(threads)
