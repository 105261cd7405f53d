"""From received images to work that is done: gathering, the queue, the workers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_node.config.values import PositiveSeconds, Seconds, Section


class Gather(Section):
    """When a study counts as complete."""

    quiet_seconds: Seconds = 5.0
    open_association_seconds: Seconds = 60.0
    poll_seconds: PositiveSeconds = 0.5
    hold_seconds: Seconds = 900.0
    count_archive: str = ""
    count_seconds: PositiveSeconds = 10.0


class Queue(Section):
    """Leases and retries of work items."""

    lease_seconds: PositiveSeconds = 60.0
    poll_seconds: PositiveSeconds = 0.25
    patience_seconds: PositiveSeconds = 1800.0
    analyse_attempts: Annotated[int, Field(ge=1)] = 3
    deliver_attempts: Annotated[int, Field(ge=1)] = 200
    backoff_seconds: PositiveSeconds = 2.0
    backoff_cap_seconds: PositiveSeconds = 900.0


class Work(Section):
    """How many workers `serve` runs as threads; 0 leaves the work to ``dicom-node work`` processes.

    Each worker decodes and scores in a child process of its own, within the limits for one image.
    """

    workers: Annotated[int, Field(ge=0, le=64)] = 2
    image_seconds: PositiveSeconds = 120.0
    image_memory_megabytes: Annotated[int, Field(ge=64, le=1_048_576)] = 4096
