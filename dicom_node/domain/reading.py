"""The reading worklist as values: what a person sees of studies, banks and the node, and what is asked for.

Unlike everything else that rooms hand to each other, some of these carry patient attributes, read from the images at
the moment of asking. They go to the person who asked and nowhere else: never into a log, a URL or the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Order(StrEnum):
    """By what a list of studies is ordered."""

    NEWEST = "newest"
    UNUSUAL = "unusual"
    URGENT = "urgent"


class Progress(StrEnum):
    """How far the node is with a study, in words for people."""

    ARRIVING = "arriving"
    QUEUED = "queued"
    ANALYSING = "analysing"
    ANSWERED = "answered"
    FAILED = "failed"


class Role(StrEnum):
    """What a person may do: a viewer looks, operators also order and mark, admins also change banks and users."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Patient:
    """Who an image says it is of, as text for display, already freed of control characters. All may be ""."""

    name: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    study_description: str = field(default="", repr=False)
    study_moment: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which studies are listed; all conditions that are given hold.

    Attributes
    ----------
    verdicts
        Of the newest report.
    progress
        How far the node is.
    marks
        What people said last: "normal", "abnormal", or "" for nothing.
    destination, delivery
        The newest report's state there, as `DeliveryState.state`.
    modality
        Of an image, such as "CR".
    since, until
        The last image came at this moment or later; before this moment.
    search
        Part of a patient's name, or the beginning of an ID, accession number or Study Instance UID. Never logged.
    minimum_percentile
        Of the image that decides.
    """

    order: Order = Order.NEWEST
    verdicts: frozenset[str] = frozenset()
    progress: frozenset[Progress] = frozenset()
    marks: frozenset[str] = frozenset()
    destination: str = ""
    delivery: str = ""
    modality: str = ""
    since: datetime | None = None
    until: datetime | None = None
    search: str = field(default="", repr=False)
    minimum_percentile: float | None = None


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """Where the newest report is at one destination: see `pipeline.story.destinations` for the states."""

    destination: str
    state: str
    reason: str = ""
    item: int | None = None


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One line of the list.

    Attributes
    ----------
    percentile
        Of the image that decides, in [0, 100]: the share of the bank's calibration normals that score lower. None
        where nothing was scored.
    threshold_percentile
        Where the bank's threshold lies on the same scale, in [0, 100].
    waiting_seconds
        Since the newest unanswered image came; None once it is answered.
    decisive_image
        SOP Instance UID of the image to show: the one that decides, else the first.
    reason
        Why there is no score, "" where there is one.
    """

    study_instance_uid: str
    patient: Patient
    revision: int
    received_at: datetime
    images: int
    modalities: tuple[str, ...]
    progress: Progress
    verdict: str | None
    percentile: float | None
    threshold_percentile: float | None
    score: float | None
    priority: int
    waiting_seconds: float | None
    deliveries: tuple[DeliveryState, ...]
    mark: str
    decisive_image: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StudyList:
    """One page of the list; `total` counts all that meet the filters.

    `note` tells people what they should know of it, such as that a search has not looked at every study yet; mostly "".
    """

    rows: tuple[StudyRow, ...]
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A normal image of the bank; `picture` says whether there is one to show."""

    identifier: str
    picture: bool


@dataclass(frozen=True, slots=True)
class WindowView:
    """A window that an image asks for (PS3.3 section C.11.2.1.2), on the scale of its values after the Modality LUT.

    `function` is its VOI LUT Function: LINEAR, LINEAR_EXACT or SIGMOID. `name` is its explanation, mostly "".
    """

    centre: float
    width: float
    function: str = "LINEAR"
    name: str = ""


@dataclass(frozen=True, slots=True)
class ImageView:
    """One image of the study page.

    Attributes
    ----------
    percentile, score, threshold, z_score
        As `domain.types.Score`; None where the image was not scored, and `reason` says why.
    heat_map
        Whether there is one to lay over the image.
    outline
        Corners (column, row) of the most unusual region, in pixels; empty where there is none.
    windows
        Those that the image asks for, its own choice first.
    """

    sop_instance_uid: str
    modality: str
    view: str
    rows: int
    columns: int
    decisive: bool
    percentile: float | None
    score: float | None
    threshold: float | None
    z_score: float | None
    reason: str
    bank_name: str
    bank_hash: str
    method: str
    also: tuple[Row, ...]
    neighbours: tuple[Neighbour, ...]
    heat_map: bool
    outline: tuple[tuple[float, float], ...]
    windows: tuple[WindowView, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class StudyView:
    """Everything of the study page. The rows are those of `pipeline.story` and `store.overview`."""

    row: StudyRow
    images: tuple[ImageView, ...]
    report_text: str
    report_uid: str
    history: tuple[Row, ...]
    destinations: tuple[Row, ...]
    work_items: tuple[Row, ...]
    events: tuple[Row, ...]
    marks: tuple[Row, ...]
    objects: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class BankView:
    """One bank: whether it scores now, what it is made of, what its own check flagged.

    `percentiles` are the deciles and tails of its calibration scores, (percent, score); `flagged` the normals that lie
    far from the others of their own bank, (identifier, leave-one-out score). `card` is its model card as Markdown.
    """

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
    percentiles: tuple[tuple[float, float], ...]
    flagged: tuple[tuple[str, float], ...]
    card: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer: a sender, a destination, an archive, a worklist.

    `last_at` is the last traffic that went well, `error` what went wrong last, at `error_at`.
    """

    name: str
    kind: str
    last_at: datetime | None
    state: str
    detail: str = ""
    error: str = ""
    error_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HealthView:
    """The node at a glance.

    `queue` counts work items by kind and state; `traffic` is the last image by modality and sending AE title;
    `errors` are the latest failures, each with its moment, what and why.
    """

    at: datetime
    version: str
    ae_title: str
    queue: tuple[Row, ...]
    oldest_due_seconds: float | None
    free_bytes: int
    reserve_bytes: int
    total_bytes: int
    peers: tuple[PeerView, ...]
    traffic: tuple[Row, ...]
    errors: tuple[Row, ...]
    due: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A DICOM object of this node's own making: its attributes for a query, and where its bytes are read."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    digest: str
