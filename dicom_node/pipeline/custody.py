"""Keeps account of associations that store something, so that gathering knows when a sender has finished."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from dicom_node.db.engine import writing
from dicom_node.store import studies


class Associations:
    """The two calls that the receiver makes around an association's first store and its end."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def opened(self, association_id: str, calling: str, called: str, peer_address: str, at: datetime) -> None:
        """Note that an association is about to store its first object."""
        with writing(self._engine) as conn:
            studies.association_opened(conn, association_id, calling, called, peer_address, at)

    def ended(self, association_id: str, how: str) -> None:
        """Note that it was released or aborted."""
        with writing(self._engine) as conn:
            studies.association_ended(conn, association_id, how, self._clock())
