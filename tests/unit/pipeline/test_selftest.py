"""The self-test against something that is not this node."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.errors import SelftestError
from dicom_node.domain.types import Destination
from dicom_node.pipeline import selftest
from dicom_node.store.files import FileStore


def test_a_phantom_that_another_program_took_is_told_as_such(engine: Engine, tmp_path: Path) -> None:
    files = FileStore(tmp_path / "store", 0)
    with StorageSink(tmp_path / "other") as other:
        port = Destination("the node itself", "OTHER", *other.address)
        with pytest.raises(SelftestError, match="something else listens there"):
            selftest.run(engine, files, port, [], (), timeout=1)
