"""A worklist of scheduled procedures that says more than is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date
from functools import partial
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt

from dicom_node.deliver import association
from dicom_node.domain.errors import DestinationRefusedError
from dicom_node.domain.scheduled import ScheduledProcedure
from dicom_node.domain.types import Destination
from dicom_node.worklist import mwl

DAY = date(2026, 3, 1)


@pytest.fixture
def ris() -> Iterator[Destination]:
    """Run a worklist that has as many procedures of each modality as may be in all, less one."""

    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        modality = event.identifier.ScheduledProcedureStepSequence[0].Modality
        for number in range(mwl.MOST - 1):
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{len(modality)}{ord(modality[0])}.{number}"
            yield 0xFF00, match

    entity = AE("RIS")
    entity.add_supported_context(mwl.MODALITY_WORKLIST)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        yield Destination("ris", "RIS", "127.0.0.1", server.socket.getsockname()[1])
    finally:
        server.shutdown()


def ask(ris: Destination, *modalities: str) -> list[ScheduledProcedure]:
    connect = partial(association.associated, calling_ae_title="NODE", maximum_pdu_size=16384)
    return mwl.scheduled(
        connect, ris, days=(DAY, DAY), modalities=modalities, stations=(), zone=UTC, timeout=60.0
    )


def test_more_than_is_looked_at_is_an_error_and_nothing_is_left_out(ris: Destination) -> None:
    assert len(ask(ris, "CR")) == mwl.MOST - 1
    with pytest.raises(
        DestinationRefusedError, match="more than 2000 procedures are scheduled; state modalities"
    ):
        ask(ris, "CR", "DX")
