"""Fetches the images of procedure steps that wait for them. Knows no archive: how to fetch is given in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from dicom_node.db.engine import writing
from dicom_node.domain.errors import NodeError
from dicom_node.store import expected, procedure_steps

_MOST_FETCHES = 20
_AGAIN_AFTER = timedelta(minutes=5)


def fetch_inputs(
    engine: Engine, fetch: Callable[[str, str], bool], clock: Callable[[], datetime], most: int = 10
) -> int:
    """Fetch the images of steps that wait for them; return how many studies came.

    Parameters
    ----------
    fetch
        Fetches a study from the archive of that name; returns whether it is here. Raises NodeError.
    """
    came = 0
    for _ in range(most):
        now = clock()
        with writing(engine) as conn:
            wanted = procedure_steps.to_fetch(conn, now, now + _AGAIN_AFTER)
        if wanted is None:
            break
        uid, study, archive, attempts = wanted
        try:
            here, why = fetch(archive, study), "the archive did not give the whole study"
        except NodeError as error:
            here, why = False, str(error)
            if not error.retryable:
                attempts = _MOST_FETCHES
        with writing(engine) as conn:
            if here:
                procedure_steps.fetched(conn, uid)
                came += 1
            elif attempts >= _MOST_FETCHES:
                procedure_steps.end(conn, uid, f"its images cannot be fetched: {why}", clock())
                expected.settle(conn, "ups", uid, "withdrawn", clock())
    return came
