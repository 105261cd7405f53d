"""Fetching images from an archive, as values: where from, what, and what became of it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from dicom_node.domain.limits import Window
from dicom_node.domain.security import ClientSecurity

How = Literal["c-get", "c-move", "wado"]


@dataclass(frozen=True, slots=True)
class Archive:
    """A peer that images are fetched from.

    Attributes
    ----------
    how
        By C-GET on the same association, by C-MOVE to this node's own AE title, or by WADO-RS at `url`.
    images_per_minute
        At most so many, None for no limit. It binds what is fetched in bulk, not what a work item asks for.
    hours
        When it is fetched from in bulk; empty for always.
    studies_at_a_time
        In bulk, nothing is fetched while so many studies wait in the node's queue.
    timeout
        Longest wait, in seconds, for the connection and for each answer.
    """

    name: str
    ae_title: str
    host: str
    port: int
    security: ClientSecurity = field(default_factory=ClientSecurity)
    how: How = "c-get"
    url: str = ""
    images_per_minute: float | None = None
    hours: tuple[Window, ...] = ()
    studies_at_a_time: int = 20
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Fetch:
    """What is wanted: a study, or a part of it where series or instances are named."""

    study_instance_uid: str
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of it: images that are safe here now (new ones or held before), and those that failed and why.

    `expected` is how many the archive said there are, None where it did not say.
    """

    stored: int
    failed: int
    expected: int | None = None
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything is here."""
        return self.failed == 0 and self.stored > 0 and self.stored >= (self.expected or 0)


class Fetcher(Protocol):
    """Fetches; on return every image that counts as stored is as safe as one that came by C-STORE."""

    def __call__(self, archive: Archive, what: Fetch) -> Fetched:
        """Fetch from an archive.

        Raises
        ------
        DestinationAwayError
            If the archive is away: try again later.
        DestinationRefusedError, NotOfferedError
            If it will not.
        OutOfResourcesError
            If the disk is too full.
        """
