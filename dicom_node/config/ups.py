"""Whose procedure steps this node performs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dicom_node.config.tls import DestinationTls
from dicom_node.config.values import AETitle, CodeValue, Name, PeerPort, PositiveSeconds, Section


class UpsSourceSection(Section):
    """A provider of Unified Procedure Steps (PS3.4 Annex CC) that this node performs items of."""

    name: Name
    ae_title: AETitle
    host: str
    port: PeerPort
    tls: DestinationTls = DestinationTls()
    username: Annotated[str, Field(max_length=64)] = ""
    passcode_file: Path | None = None
    timeout: PositiveSeconds = 30.0
    mode: Literal["pull", "subscribe"] = "pull"
    poll_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 30.0
    work_items: tuple[CodeValue, ...] = ("110004",)
    station_names: tuple[CodeValue, ...] = ()
    station_classes: tuple[CodeValue, ...] = ()
    archive: str = ""
    wait_for_delivery: tuple[str, ...] | None = None
    items_at_a_time: Annotated[int, Field(ge=1, le=10_000)] = 20
    input_attempts: Annotated[int, Field(ge=1, le=1000)] = 10

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.host:
            raise ValueError("host is empty; a name or an address would be right")
        if not self.work_items:
            raise ValueError(
                'work_items is empty; the codes of the items that are this node\'s would be right, as ["110004"]'
            )
        if self.passcode_file is not None and not self.username:
            raise ValueError("passcode_file is the passcode of a username, and none is set")
        return self
