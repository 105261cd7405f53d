"""The values that rooms hand to each other: frozen, plain, without behaviour beyond their own shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from dicom_node.domain.explanation import Region
from dicom_node.domain.limits import Limits
from dicom_node.domain.routing import Route
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.states import State


class Kind(StrEnum):
    """What a work item asks for."""

    ANALYSE = "analyse"
    DELIVER = "deliver"


class Verdict(StrEnum):
    """What a report says of a study as a whole."""

    ABOVE = "above threshold"
    BELOW = "below threshold"
    NOT_ANALYSED = "not analysed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Received:
    """One C-STORE as it came in: where its bytes were staged, and what was negotiated for it.

    `path` is a complete Part 10 file outside the store proper, not yet synced to disk; whoever takes the
    value owns the file. `dataset_offset` is where the data set begins in it, after preamble and file meta.
    """

    path: Path
    dataset_offset: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association_id: str
    received_at: datetime


class Ingested(StrEnum):
    """What became of a Received."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    OWN = "own object"


@dataclass(frozen=True, slots=True)
class Instance:
    """One image the node holds. `digest` is the SHA-256 (hex) of the data set's bytes as received.

    `lost` means that its file was found damaged or missing.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    path: Path
    calling_ae_title: str
    revision: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One thing to be done; (kind, study, revision, destination) is unique. `destination` is "" for ANALYSE.

    `bank` names the one to analyse with; "" leaves it to those that are active when the work is done.
    """

    id: int
    kind: Kind
    study_instance_uid: str
    revision: int
    destination: str
    priority: int
    state: State
    attempts: int
    available_at: datetime
    reason: str
    bank: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on an item until a moment, proven by its token (fencing)."""

    item: WorkItem
    token: str
    owner: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The work could not be done now and should be tried again, because of `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The work cannot be done, because of `reason`; a person decides what follows."""

    reason: str


Outcome = Done | Retry | Refuse


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one image was not scored: a stable code for programs, a sentence for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """How far one image lies from the bank's normals.

    Attributes
    ----------
    value
        Anomaly score, >= 0, no unit; higher is always further from normal.
    percentile
        Share of the calibration normals with a lower score, in percent [0, 100].
    z_score
        (value - mean) / standard deviation of the calibration normals' scores.
    threshold
        Score above which an image counts as above threshold.
    above
        Whether ``value > threshold``.
    view_distances
        k-th neighbour distance of each view, in the order of the bank's views.
    neighbours
        Identifiers of the nearest normal images, nearest first.
    """

    value: float
    percentile: float
    z_score: float
    threshold: float
    above: bool
    view_distances: tuple[float, ...] = ()
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which bank and algorithm made a score; goes into every report.

    `calibration` says where the calibration scores come from: "held-out" or "separate" normals, or
    "leave-one-out" (each normal of the bank against the others). `weights_sha256`, `weights_licence` and
    `training_data` are the backbone's.
    """

    bank_hash: str
    bank_name: str
    algorithm: str
    algorithm_version: str
    backbone: str
    head: str
    k: int
    views: tuple[str, ...]
    false_positive_rate: float
    normal_images: int
    calibration: str
    calibration_images: int
    population: str
    site: str
    created_at: str
    weights_sha256: str = ""
    weights_licence: str = ""
    training_data: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A score beside the one that decides, and what made it."""

    score: Score
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image of a study: exactly one of `score` and `refusal` is set.

    `also` holds scores by other methods; they are reported and decide nothing. `region` is the most unusual one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    score: Score | None = None
    refusal: Refusal | None = None
    provenance: Provenance | None = None
    also: tuple[Measurement, ...] = ()
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The answer to one revision of a study. The image with the highest score decides the verdict."""

    study_instance_uid: str
    revision: int
    verdict: Verdict
    images: tuple[ImageResult, ...]
    reason: str = ""
    decisive: int | None = None

    @property
    def provenance(self) -> Provenance | None:
        """Provenance of the decisive image, if any image was scored."""
        return None if self.decisive is None else self.images[self.decisive].provenance


@dataclass(frozen=True, slots=True)
class Report:
    """A finished DICOM object: its identifiers and its bytes as a Part 10 file."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    content: bytes = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """A peer that results are sent to.

    `report_classes` are the SOP Classes that a report may be sent as, the one that is tried first first; empty leaves
    it at the report's own. `confirm` says how it is asked whether it holds what it was sent; "auto" tries both.

    `objects` are the kinds of display objects that it gets beside a report.
    `kind` says how it is spoken to: by DIMSE, by STOW-RS at `url`, or with an HL7 v2 message for `application` at
    `facility`; `ae_title` is then empty.
    """

    name: str
    ae_title: str
    host: str
    port: int
    security: ClientSecurity = field(default_factory=ClientSecurity)
    report_classes: tuple[str, ...] = ()
    confirm: Literal["auto", "commitment", "find", "none"] = "auto"
    kind: Literal["dicom", "stow", "hl7"] = "dicom"
    url: str = ""
    application: str = ""
    facility: str = ""
    limits: Limits = field(default_factory=Limits)
    route: Route = field(default_factory=Route)
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a destination answered to one object that it stored.

    `sop_instance_uid` is the report's own, `sent_as` the SOP Class that it was sent as, where that was another; `also`
    are the display objects that it stored with the report.
    """

    destination: str
    sop_instance_uid: str
    status: int
    comment: str = ""
    sent_as: str = ""
    also: tuple[Delivery, ...] = ()
