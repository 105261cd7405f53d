"""Where reports go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from dicom_node.config.routing import DailyWindow, RouteSection
from dicom_node.config.tls import DestinationTls
from dicom_node.config.values import AETitle, Name, PeerPort, PositiveSeconds, Section, service_url
from dicom_node.domain.limits import Limits, Window

ReportClass = Literal["comprehensive-3d", "comprehensive", "enhanced", "basic-text"]
"""SOP Classes that a report can be sent as, the richest first."""

REPORT_CLASSES: dict[ReportClass, str] = {
    "comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
    "basic-text": "1.2.840.10008.5.1.4.1.1.88.11",
}
"""Their UIDs."""


DisplayObject = Literal["secondary-capture", "presentation-state", "key-objects", "segmentation"]
"""Kinds of objects that may accompany a report."""


class DestinationSection(Section):
    """A peer that reports are sent to: what every kind of it has."""

    name: Name
    tls: DestinationTls = DestinationTls()
    route: RouteSection = RouteSection()
    max_associations: Annotated[int, Field(ge=1, le=64)] = 2
    attempts: Annotated[int, Field(ge=1)] | None = None
    backoff_seconds: PositiveSeconds | None = None
    backoff_cap_seconds: PositiveSeconds | None = None
    schedule: tuple[DailyWindow, ...] = ()

    @property
    def limits(self) -> Limits:
        """Its limits as the value that the rest of the program takes."""
        return Limits(
            self.max_associations,
            self.attempts,
            self.backoff_seconds,
            self.backoff_cap_seconds,
            tuple(Window.parse(text) for text in self.schedule),
        )


class ArchiveSection(DestinationSection):
    """A peer that keeps DICOM objects."""

    username: Annotated[str, Field(max_length=64)] = ""
    passcode_file: Path | None = None
    report_classes: Annotated[tuple[ReportClass, ...], Field(min_length=1)] = tuple(REPORT_CLASSES)
    objects: tuple[DisplayObject, ...] = ()

    @model_validator(mode="after")
    def _passcode_has_a_user(self) -> Self:
        if self.passcode_file is not None and not self.username:
            raise ValueError("passcode_file is the passcode of a username, and none is set")
        return self


class DicomDestination(ArchiveSection):
    """An archive that is spoken to by DIMSE."""

    kind: Literal["dicom"] = "dicom"
    ae_title: AETitle
    host: Annotated[str, Field(min_length=1)]
    port: PeerPort
    confirm: Literal["auto", "commitment", "find", "none"] = "auto"


class StowDestination(ArchiveSection):
    """An archive that is spoken to by DICOMweb."""

    kind: Literal["stow"]
    url: Annotated[str, AfterValidator(service_url)]
    token_file: Path | None = None
    confirm: Literal["auto", "find", "none"] = "auto"

    @model_validator(mode="after")
    def _complete(self) -> StowDestination:
        if self.url.startswith("https:") != self.tls.enabled:
            raise ValueError(
                "https: in url and tls.enabled = true belong together; [destinations.tls] says who "
                "vouches for the server, in ca_certificates"
            )
        if self.token_file is not None and self.username:
            raise ValueError("token_file and username are two ways to say who asks; set one of them")
        if self.username and self.passcode_file is None:
            raise ValueError("username needs passcode_file")
        return self


class Hl7Destination(DestinationSection):
    """A system that is told of each report by an HL7 v2 message."""

    kind: Literal["hl7"]
    host: Annotated[str, Field(min_length=1)]
    port: PeerPort
    receiving_application: Annotated[str, Field(max_length=180)] = ""
    receiving_facility: Annotated[str, Field(max_length=180)] = ""


AnyDestination = Annotated[
    Annotated[DicomDestination, Tag("kind=dicom")]
    | Annotated[StowDestination, Tag("kind=stow")]
    | Annotated[Hl7Destination, Tag("kind=hl7")],
    Discriminator(
        lambda value: f"kind={value.get('kind', 'dicom') if isinstance(value, dict) else value.kind}",
        custom_error_type="no_such_kind",
        custom_error_message='kind is none of "dicom", "stow", "hl7"',
    ),
]
"""A destination of whichever kind; one that states none is spoken to by DIMSE."""


class Deliver(Section):
    """The C-STORE SCU."""

    calling_ae_title: AETitle | None = None
    timeout: PositiveSeconds = 30.0
    confirm_seconds: PositiveSeconds = 600.0
    maximum_pdu_size: Annotated[int, Field(ge=4096, le=4_194_304)] = 131_072
