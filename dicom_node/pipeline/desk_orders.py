"""What people order from the page, each order told to the audit trail with the name of who gave it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Engine

from dicom_node.db.engine import writing
from dicom_node.domain import urgency
from dicom_node.domain.audit import Administered, Audit, AuditOutcome, Setting
from dicom_node.domain.errors import IllegalTransitionError, NodeError, NotFoundError
from dicom_node.domain.people import By
from dicom_node.pipeline.desk_banks import Banks
from dicom_node.pipeline.orders import Orders, Row
from dicom_node.queue import items
from dicom_node.store import marks, studies
from dicom_node.store.marks import Mark

_T = TypeVar("_T")

MOST = 500
"""Items or studies of one order."""


class DeskOrders:
    """Carries out orders.

    Parameters
    ----------
    audit
        Is told of each, and how it came out.
    """

    def __init__(self, engine: Engine, banks: Banks, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._banks = banks
        self._audit = audit
        self._clock = clock

    def retry(self, item_ids: Iterable[int], by: By) -> Sequence[Row]:
        """Schedule items again; see `pipeline.orders.Orders.retry`."""
        rows: list[Row] = []
        for item in _bounded(item_ids):
            rows += self._orders("worklist retry", f"work-item/{item}", by).retry([item])
        return rows

    def cancel(self, item_ids: Iterable[int], by: By) -> Sequence[Row]:
        """Cancel items; see `pipeline.orders.Orders.cancel`."""
        rows: list[Row] = []
        for item in _bounded(item_ids):
            rows += self._orders("worklist cancel", f"work-item/{item}", by).cancel([item])
        return rows

    def rerun(self, wanted: Iterable[str], bank: str, by: By) -> Sequence[Row]:
        """Have studies analysed again; see `pipeline.orders.Orders.rerun`."""
        self._banks.require(bank)
        return self._orders("worklist rerun", bank or "active banks", by).rerun(_bounded(wanted), bank)

    def prioritise(self, study_instance_uid: str, priority: int, by: By) -> Sequence[Row]:
        """Give the study's work that is not begun another priority; a row for each item that got it.

        Raises
        ------
        IllegalTransitionError
            If nothing of the study waits, or the priority is none of `domain.urgency`.
        """
        if priority not in urgency.NAMES:
            known = ", ".join(f"{number} ({name})" for number, name in urgency.NAMES.items())
            raise IllegalTransitionError(f"priority {priority} is none; write one of {known}")
        named = urgency.NAMES[priority]
        with self._noting(f"worklist prioritise {named}", f"priority/{named}", by)(study_instance_uid):
            with writing(self._engine) as conn:
                if studies.latest_revision(conn, study_instance_uid) is None:
                    raise NotFoundError(f"study {study_instance_uid} is not held here")
                changed = items.prioritise(conn, study_instance_uid, priority, self._clock())
            if not changed:
                raise IllegalTransitionError(
                    f"nothing of study {study_instance_uid} waits to be begun with another priority than {named}"
                )
        return [
            {
                "study_instance_uid": study_instance_uid,
                "item": item.id,
                "kind": item.kind.value,
                "revision": item.revision,
                "destination": item.destination,
                "state": item.state.value,
                "became": f"priority {named}",
                "reason": "",
            }
            for item in changed
        ]

    def mark(self, study_instance_uid: str, word: Mark, by: By) -> None:
        """Note a person's word about a study; see `store.marks`."""
        with (
            self._noting("worklist mark", word, by)(study_instance_uid),
            writing(self._engine) as conn,
        ):
            marks.add(conn, study_instance_uid, word, by.name, self._clock())

    def activate(self, bank: str, by: By) -> None:
        """Make a bank the active one."""
        with self._noting("bank activate", f"bank/{bank[:64]}", by, Setting.SOFTWARE)(""):
            self._banks.activate(bank)

    def rollback(self, by: By) -> str:
        """Go back to the bank before; return its name."""
        with self._noting("bank rollback", "bank/active", by, Setting.SOFTWARE)(""):
            return self._banks.rollback()

    def _orders(self, action: str, subject: str, by: By) -> Orders:
        return Orders(self._engine, self._clock, self._noting(action, subject, by))

    def _noting(
        self, action: str, subject: str, by: By, setting: Setting = Setting.RESTRICTED
    ) -> Callable[[str], AbstractContextManager[None]]:
        @contextmanager
        def noting(study: str) -> Iterator[None]:
            told = Administered(self._clock(), by.name, setting, action, subject, study, address=by.address)
            try:
                yield
            except NodeError as error:
                failed = AuditOutcome.SERIOUS_FAILURE
                self._audit(replace(told, outcome=failed, description=type(error).__name__))
                raise
            self._audit(told)

        return noting


def _bounded(wanted: Iterable[_T]) -> list[_T]:
    found = list(dict.fromkeys(wanted))
    if len(found) > MOST:
        raise IllegalTransitionError(f"{len(found)} are named; at most {MOST} may be at once")
    return found
