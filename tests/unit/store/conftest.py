"""Builders for the store's tests: one image as it came in, and one call that takes it in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

from dicom_node.domain.types import Ingested, Received
from dicom_node.store import instances

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Take = Callable[..., Ingested]


def received(sop: str, association: str, at: datetime) -> Received:
    return Received(
        path=Path("unused"),
        dataset_offset=0,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid=sop,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="MODALITY",
        called_ae_title="DICOMNODE",
        peer_address="192.0.2.1",
        association_id=association,
        received_at=at,
    )


@pytest.fixture
def take() -> Take:
    """Return a function that takes one image in, with defaults for all that a test does not care for."""

    def take(
        conn: Connection,
        sop: str = "1.2.3.1.1",
        content: str = "bytes",
        *,
        study: str = "1.2.3",
        series: str = "1.2.3.1",
        association: str = "A",
        at: datetime = T0,
    ) -> Ingested:
        return instances.add(
            conn,
            received(sop, association, at),
            study_instance_uid=study,
            series_instance_uid=series,
            digest=hashlib.sha256(f"{sop} {content}".encode()).hexdigest(),
            size=1000,
            at=at,
        )

    return take
