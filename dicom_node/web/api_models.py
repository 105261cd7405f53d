"""What the JSON API says of studies, as types: the shapes of its answers. Owns no question; see `api`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Uid = Annotated[str, Field(examples=["2.25.33613"], max_length=64)]
Percent = Annotated[float, Field(ge=0, le=100, description="In [0, 100].", examples=[97.3])]
Moment = Annotated[datetime, Field(examples=["2026-03-01T12:00:00Z"])]
Verdict = Literal["above threshold", "below threshold", "not analysed", "failed"]
ProgressName = Literal["arriving", "queued", "analysing", "answered", "failed"]
PriorityName = Literal["STAT", "HIGH", "ROUTINE", "LOW"]
MarkName = Literal["normal", "abnormal", ""]


class Said(BaseModel):
    """The base of every answer: made of the desk's values."""

    model_config = ConfigDict(from_attributes=True)


class PatientSaid(Said):
    """Who an image says it is of, as text freed of control characters; each may be empty."""

    name: str = Field(examples=["Doe, Jane"])
    patient_id: str
    sex: str
    age: str = Field(examples=["81 years"])
    birth_date: str
    accession_number: str
    study_description: str
    study_moment: str = Field(examples=["2026-03-01 11:58"])


class DeliverySaid(Said):
    """Where the newest report is at one destination."""

    destination: str
    state: str = Field(examples=["committed"], description="As `dicom-node worklist show` says it.")
    reason: str
    item: int | None = Field(description="The work item, for retry and cancel.")


class StudySaid(Said):
    """One line of the list."""

    study_instance_uid: Uid
    patient: PatientSaid
    revision: int
    received_at: Moment
    images: int
    modalities: list[str] = Field(examples=[["DX"]])
    progress: ProgressName
    verdict: Verdict | None
    percentile: Percent | None = Field(description="Of the image that decides, among the bank's normals.")
    threshold_percentile: Percent | None
    score: float | None
    priority: int = Field(description="1 STAT, 3 HIGH, 5 ROUTINE, 9 LOW; a smaller one goes first.")
    waiting_seconds: float | None = Field(description="Since the newest unanswered image; null once answered.")
    deliveries: list[DeliverySaid]
    mark: MarkName
    decisive_image: str
    reason: str = Field(description="Why there is no score; empty where there is one.")


class StudiesSaid(Said):
    """One page of the list; `total` counts all that meet the filters."""

    rows: list[StudySaid]
    total: int
    note: str = Field(description="What people should know of this answer; mostly empty.")


class NeighbourSaid(Said):
    """One of the nearest normals of the bank."""

    identifier: str
    picture: bool


class AlsoSaid(Said):
    """The same image measured by another method; decides nothing."""

    method: str
    bank_name: str
    bank_hash: str
    value: float
    percentile: Percent
    z_score: float
    threshold: float
    above: bool


class WindowSaid(Said):
    """A window that an image asks for, on the scale of its values after the Modality LUT."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
    name: str = Field(description="Its explanation; mostly empty.")


class ImageSaid(Said):
    """One image, and what it scored."""

    sop_instance_uid: Uid
    modality: str
    view: str
    rows: int
    columns: int
    decisive: bool
    percentile: Percent | None
    score: float | None
    threshold: float | None
    z_score: float | None
    reason: str
    bank_name: str
    bank_hash: str
    method: str
    also: list[AlsoSaid]
    neighbours: list[NeighbourSaid]
    heat_map: bool
    outline: list[tuple[float, float]] = Field(description="Corners (column, row) of the most unusual region.")
    windows: list[WindowSaid] = Field(description="Those that the image asks for, its own choice first.")
    kept: bool


class RevisionSaid(Said):
    """One revision: why it was made, and how it was answered."""

    revision: int
    why: Literal["images", "rerun", "again"]
    closed_at: Moment | None
    images: int
    bank: str
    verdict: Verdict | None
    reason: str
    report: str | None
    supersedes: list[int]


class DestinationSaid(Said):
    """One report at one destination."""

    revision: int
    destination: str
    state: str
    sent_as: str
    sop_instance_uid: str
    objects: int
    sent_at: Moment | None
    item: int | None
    attempts: int
    reason: str


class WorkItemSaid(Said):
    """One thing that is to be done, or was."""

    id: int
    kind: str
    revision: int
    destination: str
    priority: int
    state: Literal["SCHEDULED", "IN_PROGRESS", "COMPLETED", "CANCELED", "FAILED"]
    attempts: int
    available_at: Moment
    reason: str
    bank: str
    created_at: Moment
    updated_at: Moment


class EventSaid(Said):
    """One line of a study's history."""

    id: int
    at: Moment
    kind: str = Field(examples=["instance.stored"])
    work_item_id: int | None
    detail: dict[str, Any]


class WordSaid(Said):
    """What a person said of a study."""

    mark: Literal["normal", "abnormal", "clear"]
    by: str
    at: Moment


class ObjectSaid(Said):
    """A display object beside a report."""

    kind: str
    revision: int
    sop_instance_uid: Uid
    sop_class_uid: Uid
    series_instance_uid: Uid
    created_at: Moment
    kept: str


class StudyDetailSaid(Said):
    """Everything of one study."""

    row: StudySaid
    images: list[ImageSaid]
    report_uid: str
    history: list[RevisionSaid]
    destinations: list[DestinationSaid]
    work_items: list[WorkItemSaid]
    events: list[EventSaid]
    marks: list[WordSaid]
    objects: list[ObjectSaid]


class ReportSaid(Said):
    """The newest report of a study, readable."""

    study_instance_uid: Uid
    sop_instance_uid: Uid
    text: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["study 2.25.1 is not held here"])
