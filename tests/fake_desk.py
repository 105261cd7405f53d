"""A desk that knows a few studies by heart, for the pages: ordinary ones, and patients whose names attack the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from dicom_node.domain.errors import IllegalTransitionError, NotFoundError
from dicom_node.domain.people import By
from dicom_node.domain.reading import (
    BankView,
    DeliveryState,
    Filters,
    HealthView,
    Held,
    Order,
    Patient,
    Progress,
    Row,
    StudyList,
    StudyRow,
    StudyView,
)
from tests.fake_views import AT, SCRIPT, bank, health, image_uid, picture, uid, view_of

RTL = "\u05db\u05d4\u05df \u05de\u05e9\u05d4"
NAMES = (
    "Adams, Mary", "Müller, Jürgen", "Yamada, Tarou (山田 太郎)", SCRIPT, RTL, "", "x" * 300, "O'Neil & Sons, \"Ann\"",
    "Иванов, Иван", "Okafor, Chidi",
)  # fmt: skip
BANKS = ("site-a", "site-b")
LONG = "PA and lateral chest, follow-up after treatment, compared with last year " * 4


def _row(n: int, name: str, count: int) -> StudyRow:
    progress = {1: Progress.ARRIVING, 2: Progress.QUEUED, 3: Progress.ANALYSING, 4: Progress.FAILED}.get(
        n % 11, Progress.ANSWERED
    )
    answered = progress is Progress.ANSWERED
    at = [97.4, 62.0, 12.5, 99.6, 100.0, 0.0, 44.1, 81.9, 93.0][n % 9]
    refused = n % 8 == 7
    verdict = (
        None if not answered else "not analysed" if refused else ["below", "above"][at > 95] + " threshold"
    )
    scored = answered and not refused
    return StudyRow(
        study_instance_uid=uid(n),
        patient=Patient(
            name,
            "" if n == 5 else f"P{n:05d}",
            "FMO"[n % 3],
            f"{31 + n * 7 % 60} years",
            "1954-02-03",
            f"A{n:05d}",
            LONG if n == 6 else "Chest PA",
            "2026-03-01 11:40",
        ),
        revision=1,
        received_at=AT - timedelta(minutes=7 * n),
        images=2 if n == 0 else 1,
        modalities=("DX",) if n % 2 else ("CR",),
        progress=progress,
        verdict=verdict,
        percentile=at if scored else None,
        threshold_percentile=95.0 if scored else None,
        score=0.2 + at / 200 if scored else None,
        priority=1 if n == 2 else 5,
        waiting_seconds=None if answered else 60.0 * n + 12,
        deliveries=()
        if not answered
        else (
            DeliveryState("pacs", "committed"),
            DeliveryState(
                "research", "failed" if n % 5 == 0 else "waiting", "refused: 0xA900 of the PACS", 40 + n
            ),
        ),
        mark={0: "abnormal", 8: "normal"}.get(n % 13, ""),
        decisive_image=image_uid(n),
        reason="it is a lateral view, which no bank serves" if refused else "",
    )


@dataclass
class FakeDesk:
    """A desk in memory; `orders` are those it was given, `seen` whom it told the audit trail of."""

    count: int = 24
    orders: list[tuple[Any, ...]] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    asked: list[Filters] = field(default_factory=list)
    refuses: str = ""
    event: int = 7

    def __post_init__(self) -> None:
        self.rows = [_row(n, NAMES[n % len(NAMES)], self.count) for n in range(self.count)]

    def studies(self, filters: Filters, offset: int, limit: int) -> StudyList:
        self.asked.append(filters)
        rows = [
            row
            for row in self.rows
            if (not filters.search or filters.search.lower() in row.patient.name.lower())
            and (not filters.verdicts or row.verdict in filters.verdicts)
            and (not filters.marks or row.mark in filters.marks)
        ]
        if filters.order is Order.UNUSUAL:
            rows.sort(key=lambda row: -(row.percentile or -1))
        return StudyList(tuple(rows[offset : offset + limit]), len(rows))

    def _find(self, study_instance_uid: str) -> StudyRow:
        for row in self.rows:
            if row.study_instance_uid == study_instance_uid:
                return row
        raise NotFoundError(f"study {study_instance_uid} is not held here")

    def study(self, study_instance_uid: str) -> StudyView:
        row = self._find(study_instance_uid)
        return view_of(row, self.rows.index(row))

    def picture(self, sop_instance_uid: str, kind: str) -> bytes:
        number, which = int(sop_instance_uid[6:10]), int(sop_instance_uid[10:])
        if number % 9 == 5:
            raise NotFoundError(f"no {kind} of image {sop_instance_uid} can be made")
        return picture(number * 2 + which, kind)

    def study_of(self, sop_instance_uid: str) -> str:
        return uid(int(sop_instance_uid[6:10]))

    def normal_picture(self, bank: str, identifier: str) -> bytes:
        if identifier == "n9":
            raise NotFoundError(f"bank {bank} has no picture of its normal {identifier}")
        return picture(60 + int(identifier[1:]), "thumbnail")

    def changes(self, after: int) -> tuple[int, Sequence[str]]:
        return self.event, [uid(0)] if -1 < after < self.event else []

    def banks(self) -> tuple[BankView, ...]:
        return (
            bank("site-a", active=True),
            bank("site-b"),
            replace(bank("old"), fault="its index does not match"),
        )

    def health(self) -> HealthView:
        return health()

    def destinations(self) -> tuple[str, ...]:
        return ("pacs", "research")

    def _order(self, *order: Any) -> list[Row]:
        if self.refuses:
            raise IllegalTransitionError(self.refuses)
        self.orders.append(order)
        return [{"became": "SCHEDULED", "reason": ""}]

    def retry(self, items: Iterable[int], by: By) -> Sequence[Row]:
        return self._order("retry", list(items), by.name)

    def cancel(self, items: Iterable[int], by: By) -> Sequence[Row]:
        return self._order("cancel", list(items), by.name)

    def rerun(self, studies: Iterable[str], bank: str, by: By) -> Sequence[Row]:
        return self._order("rerun", list(studies), bank, by.name)

    def prioritise(self, study_instance_uid: str, priority: int, by: By) -> Sequence[Row]:
        return self._order("prioritise", study_instance_uid, priority, by.name)

    def mark(self, study_instance_uid: str, mark: str, by: By) -> None:
        self._order("mark", study_instance_uid, mark, by.name)
        row = self._find(study_instance_uid)
        self.rows[self.rows.index(row)] = replace(row, mark="" if mark == "clear" else mark)
        self.event += 1

    def activate(self, bank: str, by: By) -> None:
        self._order("activate", bank, by.name)

    def rollback(self, by: By) -> str:
        self._order("rollback", by.name)
        return "site-b"

    def results(self) -> Sequence[Held]:
        return ()

    def result(self, sop_instance_uid: str) -> bytes:
        if sop_instance_uid == "2.25.9":
            return b"\0" * 128 + b"DICM"
        raise NotFoundError(f"{sop_instance_uid} is not held here")

    def looked_at(self, study_instance_uid: str, by: By) -> None:
        self.seen.append((study_instance_uid, by.name, by.address))

    def listed(self, by: By) -> None:
        self.seen.append(("", by.name, by.address))
