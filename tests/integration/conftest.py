"""A site that offers its work as procedure steps, and a workflow manager that asks for it; see `tests.workflow`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

if TYPE_CHECKING:
    from tests.workflow import Manager, Provider


@pytest.fixture
def provider(engine: Engine, tmp_path: Path) -> Iterator[Provider]:
    from tests.workflow import Provider

    made = Provider(engine, tmp_path / "store")
    with made.scp:
        yield made


@pytest.fixture
def manager(provider: Provider) -> Iterator[Manager]:
    from tests.workflow import Manager

    made = Manager(provider.scp.address)
    yield made
    if made.association.is_established:
        made.association.release()
