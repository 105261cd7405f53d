"""Where images are fetched from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dicom_node.config.routing import DailyWindow
from dicom_node.config.tls import DestinationTls
from dicom_node.config.values import AETitle, Name, PeerPort, PositiveSeconds, Section, service_url


class ArchiveFetched(Section):
    """A peer that images are fetched from: by C-GET, by C-MOVE to this node, or by WADO-RS."""

    name: Name
    how: Literal["c-get", "c-move", "wado"] = "c-get"
    ae_title: AETitle | None = None
    host: str = ""
    port: PeerPort | None = None
    url: str = ""
    tls: DestinationTls = DestinationTls()
    username: Annotated[str, Field(max_length=64)] = ""
    passcode_file: Path | None = None
    token_file: Path | None = None
    timeout: PositiveSeconds = 60.0
    images_per_minute: Annotated[float, Field(gt=0, le=100_000)] | None = None
    hours: tuple[DailyWindow, ...] = ()
    studies_at_a_time: Annotated[int, Field(ge=1, le=100_000)] = 20
    normals_ae_title: AETitle | None = None
    normals_port: PeerPort | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.how == "wado":
            self._on_the_web()
        elif self.ae_title is None or not self.host or self.port is None:
            raise ValueError(f'how = "{self.how}" needs ae_title, host and port')
        elif self.url or self.token_file is not None:
            raise ValueError('url and token_file are for how = "wado"')
        if (self.normals_ae_title is None) != (self.normals_port is None):
            raise ValueError("normals_ae_title and normals_port belong together; set both or neither")
        if self.normals_port is not None and self.how != "c-move":
            raise ValueError(
                f'normals_ae_title and normals_port are for how = "c-move", and it is "{self.how}"'
            )
        if self.passcode_file is not None and not self.username:
            raise ValueError("passcode_file is the passcode of a username, and none is set")
        return self

    def _on_the_web(self) -> None:
        if not self.url:
            raise ValueError('how = "wado" needs url, the base of the DICOMweb services')
        if service_url(self.url) != self.url:
            raise ValueError("url ends in a slash; leave it out")
        if self.url.startswith("https:") != self.tls.enabled:
            raise ValueError(
                "https: in url and tls.enabled = true belong together; [archives.tls] says who "
                "vouches for the server, in ca_certificates"
            )
        if self.token_file is not None and self.username:
            raise ValueError("token_file and username are two ways to say who asks; set one of them")
        if self.username and self.passcode_file is None:
            raise ValueError("username needs passcode_file")
