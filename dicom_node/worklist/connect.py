"""How this room reaches a peer: by functions that it is given. Owns their shape; knows nothing of TLS or sockets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import requests
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.domain.retrieval import Archive
from dicom_node.domain.types import Destination


class Connect(Protocol):
    """Opens an association in which at least one context was accepted, and releases it at the end of the block."""

    def __call__(
        self,
        destination: Destination,
        contexts: Sequence[PresentationContext],
        *,
        timeout: float,
        handlers: Sequence[EventHandlerType] = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> AbstractContextManager[Association]:
        """Open an association.

        Raises
        ------
        DestinationAwayError, NotOfferedError, DestinationRefusedError
            If there is none.
        """


class Web(Protocol):
    """Opens an HTTP session in which every error becomes one of this program's; `answers` is given each answer."""

    def __call__(
        self, destination: Destination, timeout: float, answers: list[requests.Response]
    ) -> AbstractContextManager[requests.Session]:
        """Open a session.

        Raises
        ------
        DestinationAwayError, NotOfferedError, DestinationRefusedError
            Within the block, too: as the answers say.
        """


def peer_of(archive: Archive) -> Destination:
    """Return an archive as the peer that associations and sessions are opened to."""
    return Destination(
        archive.name,
        archive.ae_title,
        archive.host,
        archive.port,
        archive.security,
        kind="stow" if archive.how == "wado" else "dicom",
        url=archive.url,
    )


def where(archive: Archive) -> str:
    """Return the archive's name and address, for messages."""
    if archive.how == "wado":
        return f"{archive.name} ({archive.url})"
    return f"{archive.name} ({archive.ae_title} at {archive.host}:{archive.port})"
