"""What the JSON API says of banks, of the node and of orders, as types; see `api`."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from dicom_node.web.api_models import Moment, Said


class BankSaid(Said):
    """One bank of normals."""

    name: str
    bank_hash: str
    active: bool
    kind: str
    created_at: str
    normal_images: int
    calibration_images: int
    calibration: str
    population: str
    site: str
    backbone: str
    k: int
    threshold: float
    false_positive_rate: float
    percentiles: list[tuple[float, float]] = Field(description="(percent, calibration score).")
    flagged: list[tuple[str, float]] = Field(description="(normal, distance) of those that look least normal.")
    card: str = Field(description="Markdown.")
    fault: str = Field(description="Why it would not load; empty where it is whole.")


class PeerSaid(Said):
    """One peer: a sender, a destination, an archive, a worklist."""

    name: str
    kind: str
    last_at: Moment | None
    state: str
    detail: str
    error: str = Field(description="What went wrong last; mostly empty.")
    error_at: Moment | None


class QueueSaid(Said):
    """How many work items there are of a kind in a state."""

    kind: str
    state: str
    items: int


class TrafficSaid(Said):
    """What one sender sent of one modality."""

    modality: str
    calling_ae_title: str
    images: int
    last_at: Moment


class ErrorSaid(Said):
    """One of the latest failures."""

    at: Moment
    what: str
    why: str
    study_instance_uid: str
    work_item_id: int | None


class NodeSaid(Said):
    """The node at a glance."""

    at: Moment
    version: str
    ae_title: str
    queue: list[QueueSaid]
    oldest_due_seconds: float | None
    free_bytes: int
    reserve_bytes: int
    total_bytes: int
    peers: list[PeerSaid]
    traffic: list[TrafficSaid]
    errors: list[ErrorSaid]
    due: list[dict[str, Any]]


class OrderSaid(Said):
    """What became of one thing that was ordered."""

    model_config = ConfigDict(from_attributes=True, extra="allow")

    study_instance_uid: str
    became: str = Field(examples=["scheduled"], description='"refused" where it could not be done: see reason.')
    reason: str
    item: int | None = None
    as_item: int | None = None
    as_revision: int | None = None


class ActiveSaid(Said):
    """The names of the banks that score now."""

    active: str
