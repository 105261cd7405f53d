"""What the JSON API is asked, as types: filters and orders, each with its bounds. A search term is never in a URL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.reading import Filters, Order, Progress
from dicom_node.web.api_models import MarkName, PriorityName, Verdict

MOST_ROWS = 200


def _uid(value: str) -> str:
    try:
        return check_uid(value)
    except InvalidIdentifierError as error:
        raise ValueError("is no DICOM UID: digits and dots, at most 64 characters") from error


def _zoned(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


AskedUid = Annotated[str, AfterValidator(_uid), Field(max_length=64, examples=["2.25.33613"])]
AskedMoment = Annotated[
    datetime,
    AfterValidator(_zoned),
    Field(description="ISO 8601; without a zone it is UTC.", examples=["2026-03-01T00:00:00Z"]),
]
Offset = Annotated[int, Field(ge=0, le=10_000_000)]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS)]
ItemId = Annotated[int, Field(ge=1, le=2**62)]
BankName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$", examples=["site-a"])]


class Asked(BaseModel):
    """Which studies, in which order; all conditions that are given hold."""

    model_config = ConfigDict(extra="forbid")

    order: Order = Order.NEWEST
    verdict: list[Verdict] = Field(default=[], description="Of the newest report.")
    progress: list[Progress] = []
    mark: list[MarkName] = Field(default=[], description='What people said last; "" for nothing.')
    destination: str = Field(default="", max_length=64)
    delivery: str = Field(
        default="", max_length=40, description="State of the newest report there, or anywhere."
    )
    modality: Literal["", "CR", "DX", "SC"] = ""
    since: AskedMoment | None = None
    until: AskedMoment | None = None
    minimum_percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    offset: Offset = 0
    limit: Limit = 50

    def filters(self, search: str = "") -> Filters:
        """Return the desk's filters."""
        return Filters(
            order=self.order,
            verdicts=frozenset(self.verdict),
            progress=frozenset(self.progress),
            marks=frozenset(self.mark),
            destination=self.destination,
            delivery=self.delivery,
            modality=self.modality,
            since=self.since,
            until=self.until,
            search=search,
            minimum_percentile=self.minimum_percentile,
        )


class Searched(Asked):
    """As for the list, and a term: part of a patient's name, or the beginning of an ID, accession number or UID."""

    search: str = Field(min_length=1, max_length=200, examples=["doe"], repr=False)


class Items(BaseModel):
    """Work items by their numbers."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"items": [7]}]})

    items: list[ItemId] = Field(min_length=1, max_length=500)


class Again(BaseModel):
    """Studies that are to be analysed again; without a bank, with those that are active."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"studies": ["2.25.33613"], "bank": ""}]}
    )

    studies: list[AskedUid] = Field(min_length=1, max_length=500)
    bank: BankName | Literal[""] = ""


class Urgency(BaseModel):
    """A priority by its name."""

    model_config = ConfigDict(extra="forbid")

    priority: PriorityName


class Word(BaseModel):
    """A person's word about a study; "clear" takes the words before it back."""

    model_config = ConfigDict(extra="forbid")

    mark: Literal["normal", "abnormal", "clear"]
