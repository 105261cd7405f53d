"""The banks as people see them, and which is in use. Looking loads no bank; changing verifies one first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from dicom_node.domain.errors import BankError
from dicom_node.domain.reading import BankView
from dicom_node.report.for_people import visible
from dicom_node.score.bank_facts import BankFacts, BankFolder


class Banks:
    """Answers what the page of banks asks, and carries out what it orders."""

    def __init__(self, root: Path, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._root = root
        self._engine = engine
        self._clock = clock
        self._folder = BankFolder(root)

    def banks(self) -> tuple[BankView, ...]:
        """Return all banks, those in use first; none counts as active where the record of them is damaged."""
        try:
            active = self._folder.active()
        except BankError:
            active = ()
        names = self._folder.names()
        ordered = [*(n for n in active if n in names), *(n for n in names if n not in active)]
        return tuple(_view(self._folder.bank(name), active=name in active) for name in ordered)

    def require(self, name: str) -> None:
        """See that studies can be analysed with that bank, or, where it is "", with those that are active.

        Raises
        ------
        BankError
            If not; says what there is.
        """
        names = (name,) if name else self._folder.active()
        if not names:
            raise BankError(
                "no bank is active, so nothing could be scored; activate one first: "
                f"there are {', '.join(self._folder.names()) or 'none'}"
            )
        for one in names:
            if fault := self._folder.bank(one).fault:
                raise BankError(f"bank {one}: {fault}")

    def activate(self, name: str) -> None:
        """Make a bank the one that scores; see `pipeline.admin.activate_banks`."""
        self.require(name)
        from dicom_node.pipeline import admin  # it loads torch: not before somebody changes a bank

        admin.activate_banks(self._root, [name], self._engine, self._clock)

    def rollback(self) -> str:
        """Use again what was active before; return the names."""
        from dicom_node.pipeline import banks  # it loads torch, as above

        return ", ".join(banks.roll_back(self._root, self._engine, self._clock()))


def _view(facts: BankFacts, *, active: bool) -> BankView:
    manifest = facts.manifest

    def part(*keys: str) -> Any:
        found: Any = manifest
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def number(*keys: str) -> float:
        """Return a number; 0 where a manifest that was changed has something else."""
        try:
            found = float(part(*keys) or 0)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return found if isfinite(found) else 0.0

    return BankView(
        name=facts.name,
        bank_hash=facts.bank_hash,
        active=active,
        kind=str(part("kind") or "deep-knn") if manifest else "",
        created_at=visible(str(part("created_at") or "")),
        normal_images=int(number("normal_images")),
        calibration_images=int(number("calibration_images")),
        calibration=str(part("calibration") or ""),
        population=visible(str(part("population", "description") or ""), 400),
        site=visible(str(part("population", "site") or "")),
        backbone=visible(str(part("backbone", "name") or "")),
        k=int(number("k")),
        threshold=number("threshold"),
        false_positive_rate=number("false_positive_rate"),
        percentiles=facts.percentiles,
        flagged=facts.flagged,
        card=facts.card,
        fault=facts.fault,
    )
