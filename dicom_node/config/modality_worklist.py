"""Which worklists of scheduled procedures are looked at."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_node.config.tls import DestinationTls
from dicom_node.config.values import AETitle, CodeString, Name, PeerPort, PositiveSeconds, Section


class ModalityWorklist(Section):
    """A Modality Worklist SCP, such as the RIS: what is scheduled there is expected here."""

    name: Name
    ae_title: AETitle
    host: Annotated[str, Field(min_length=1)]
    port: PeerPort
    tls: DestinationTls = DestinationTls()
    poll_seconds: PositiveSeconds = 60.0
    timeout: PositiveSeconds = 30.0
    modalities: tuple[CodeString, ...] = ("CR", "DX")
    station_ae_titles: tuple[AETitle, ...] = ()
    days_back: Annotated[int, Field(ge=0, le=30)] = 1
    days_ahead: Annotated[int, Field(ge=0, le=30)] = 1
    missed_after_hours: Annotated[float, Field(gt=0, le=720)] = 12.0
