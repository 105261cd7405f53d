"""What a person orders for many at once: retry, cancel, analyse again, deliver. Owns what "many" means: one by one.

Each is a transaction of its own, so that one that cannot be done holds up none of the others, and an order that was
cut off can be given again. A dry run does the same and takes it back. Rows come back ready to print or for JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DatabaseError, NodeError, NotFoundError
from dicom_node.domain.ids import DELIVERED_AE_TITLE, SELFTEST_AE_TITLE
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind, Verdict, WorkItem
from dicom_node.pipeline import rerun
from dicom_node.queue import items
from dicom_node.store import selection
from dicom_node.store.selection import Wanted

Row = dict[str, Any]
Noting = Callable[[str], AbstractContextManager[None]]
"""Opens a block in which something is done for a study, for the audit trail."""


_SELFTESTS = (SELFTEST_AE_TITLE, DELIVERED_AE_TITLE)


def _unnoted(_study: str) -> AbstractContextManager[None]:
    return nullcontext()


class Orders:
    """Carries out orders.

    Parameters
    ----------
    clock
        The node's.
    noting
        Notes what is done for a study; not asked in a dry run.
    dry_run
        Say what would become of each, and change nothing.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime],
        noting: Noting = _unnoted,
        *,
        dry_run: bool = False,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._noting = _unnoted if dry_run else noting
        self._dry_run = dry_run

    def retry(self, item_ids: Iterable[int]) -> list[Row]:
        """Schedule items again; see `rerun.retry`."""

        def one(conn: Connection, item: WorkItem) -> Row:
            retried = rerun.retry(conn, item.id, self._clock())
            return {"became": "scheduled", "as_item": retried.item_id, "as_revision": retried.revision}

        return [self._item(item_id, one) for item_id in item_ids]

    def cancel(self, item_ids: Iterable[int]) -> list[Row]:
        """Cancel items; see `queue.items.cancel`."""

        def one(conn: Connection, item: WorkItem) -> Row:
            items.cancel(conn, item.id, self._clock())
            return {"became": "canceled"}

        return [self._item(item_id, one) for item_id in item_ids]

    def rerun(self, studies: Iterable[str], bank: str = "", priority: int = items.ROUTINE) -> list[Row]:
        """Have studies analysed again; see `rerun.rerun`. The bank has to be looked at before."""

        def one(study: str, conn: Connection) -> Row:
            done = rerun.rerun(conn, study, self._clock(), bank, priority)
            return {"became": done.state, "as_item": done.item_id, "as_revision": done.revision}

        empty = {"as_item": None, "as_revision": None}
        return [self._one(study, empty, partial(one, study)) for study in studies]

    def deliver(
        self,
        destination: str,
        *,
        since: datetime | None = None,
        verdict: Verdict | None = None,
        newest: bool = False,
    ) -> list[Row]:
        """Schedule the delivery of reports that never went to a destination; see `selection.reports_for`.

        "sent" was sent there before; "waiting" has an item there already, in whatever state: retry that one; "gone"
        has no bytes here any more.
        """

        def one(study: str, revision: int, conn: Connection) -> Row:
            item = items.schedule(conn, Kind.DELIVER, study, revision, self._clock(), destination, items.LOW)
            return {"became": "scheduled", "as_item": item}

        with reading(self._engine) as conn:
            found = selection.reports_for(
                conn, destination, _SELFTESTS, since=since, verdict=verdict, newest=newest
            )
        rows = []
        for report in found:
            study, revision = report.study_instance_uid, report.revision
            row: Row = {"revision": revision, "as_item": report.item}
            became = "sent" if report.delivered else "waiting" if report.item else "" if report.held else "gone"
            if became:
                rows.append({"study_instance_uid": study, **row, "became": became, "reason": ""})
                continue

            rows.append(self._one(study, row, partial(one, study, revision)))
        return rows

    def _item(self, item_id: int, act: Callable[[Connection, WorkItem], Row]) -> Row:
        try:
            with reading(self._engine) as conn:
                item = items.get(conn, item_id)
        except NotFoundError as error:
            return {"item": item_id, "study_instance_uid": "", "became": "refused", "reason": str(error)}
        told = {
            "item": item.id,
            "kind": item.kind.value,
            "revision": item.revision,
            "destination": item.destination,
            "state": item.state.value,
        }
        return self._one(item.study_instance_uid, told, lambda conn: act(conn, item))

    def _one(self, study: str, told: Row, act: Callable[[Connection], Row]) -> Row:
        row = {"study_instance_uid": study, **told}
        try:
            with self._noting(study), self._transaction() as conn:
                done = act(conn)
        except DatabaseError:
            raise
        except NodeError as error:
            return {**row, "became": "refused", "reason": str(error)}
        return {**row, **done, "reason": ""}

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with writing(self._engine) as conn:
            savepoint = conn.begin_nested()
            yield conn
            if self._dry_run:
                savepoint.rollback()
            else:
                savepoint.commit()


def find_items(
    engine: Engine,
    states: Sequence[State],
    *,
    kind: Kind | None = None,
    destination: str = "",
    study_instance_uid: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[int]:
    """Return the ids of items; see `queue.items.matching`."""
    with reading(engine) as conn:
        found = items.matching(
            conn,
            states,
            kind=kind,
            destination=destination,
            study_instance_uid=study_instance_uid,
            since=since,
            until=until,
        )
    return [item.id for item in found]


def find_studies(engine: Engine, wanted: Wanted) -> list[str]:
    """Return the studies that are meant, self-tests left out; see `store.selection`."""
    with reading(engine) as conn:
        return list(selection.studies(conn, wanted, _SELFTESTS))


def counts(rows: Iterable[Mapping[str, Any]], *by: str) -> list[Row]:
    """Return how many rows there are of each combination of what stands in some columns, sorted."""
    found = Counter(tuple(str(row.get(column, "")) for column in by) for row in rows)
    return [{**dict(zip(by, key, strict=True)), "number": number} for key, number in sorted(found.items())]
