"""Holds rows and files against each other, a folder at a time. Changes nothing, never commits.

A node may be at work meanwhile. A file comes before its row and a row is marked before its file goes, so each
doubt is looked at a second time, and a file too young to be judged is left for the next time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, func, literal, select, union_all

from dicom_node.db.schema import instances, objects, reports
from dicom_node.store.faults import Code, Fault
from dicom_node.store.files import FileStore, told
from dicom_node.store.shelves import PREFIXES, Shelf, shelf

_FEW = 50_000

Opened = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Amount:
    """What there is to look at; display objects count as reports."""

    images: int
    reports: int
    size: int


def amount(conn: Connection) -> Amount:
    """Return how much is held by the rows."""
    images, size = conn.execute(
        select(func.count(), func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.kept == "yes")
    ).one()
    made = (
        conn.execute(select(func.count()).select_from(table).where(table.c.kept == "yes")).scalar_one()
        for table in (reports, objects)
    )
    return Amount(int(images), sum(int(held) for held in made), int(size))


def image_faults(
    opened: Opened, files: FileStore, grown_up: datetime, looked_at: Callable[[int], None]
) -> Iterator[Fault]:
    """Yield every fault of the images held: each file is read, each row compared.

    Parameters
    ----------
    opened
        Opens a transaction that reads; many are opened, none for long.
    grown_up
        A file placed after this moment may still be waiting for its row.
    looked_at
        Told the size of each data set that was read.
    """
    for prefix, rows in _by_folder(opened, images=True):
        here = shelf(files, "instances", prefix)
        yield from here.faults
        for digest in sorted(rows.keys() | here.placed.keys()):
            fault = _image(files, digest, rows.get(digest), here, grown_up)
            if digest in rows:
                looked_at(rows[digest].size)
            if fault is not None:
                again = _rows(opened, prefix, images=True, digest=digest)
                fault = _image(files, digest, again.get(digest), here, grown_up)
            if fault is not None:
                yield fault


def report_faults(opened: Opened, files: FileStore, grown_up: datetime) -> Iterator[Fault]:
    """Yield every fault of the reports held, and of the display objects among them; see `image_faults`."""
    for prefix, rows in _by_folder(opened, images=False):
        here = shelf(files, "reports", prefix)
        yield from here.faults
        for digest in sorted(rows.keys() | here.placed.keys()):
            fault = _report(files, digest, rows.get(digest), here, grown_up)
            if fault is not None:
                again = _rows(opened, prefix, images=False, digest=digest)
                fault = _report(files, digest, again.get(digest), here, grown_up)
            if fault is not None:
                yield fault


def _by_folder(opened: Opened, *, images: bool) -> Iterator[tuple[str, Mapping[str, Row[Any]]]]:
    """Yield the name of each folder and the rows of its files; few rows are asked for in few queries."""
    tables = (instances,) if images else (reports, objects)
    with opened() as conn:
        counts = (conn.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
        few = sum(counts) < _FEW
    for first in PREFIXES[::16]:
        near = _rows(opened, first[0], images=images) if few else {}
        for prefix in (f"{first[0]}{second[1]}" for second in PREFIXES[:16]):
            here = {digest: row for digest, row in near.items() if digest.startswith(prefix)}
            yield prefix, here if few else _rows(opened, prefix, images=images)


def _rows(opened: Opened, prefix: str, *, images: bool, digest: str = "") -> Mapping[str, Row[Any]]:
    with opened() as conn:
        if images:
            return {
                row.digest: row for row in conn.execute(select(instances).where(_in(instances, prefix, digest)))
            }
        made = union_all(
            *(
                select(
                    literal(table.name).label("what"),
                    table.c.digest,
                    table.c.kept,
                    table.c.sop_instance_uid,
                    table.c.study_instance_uid,
                    table.c.revision,
                ).where(_in(table, prefix, digest))
                for table in (reports, objects)
            )
        )
        return {row.digest: row for row in conn.execute(made)}


def _in(table: Table, prefix: str, digest: str) -> ColumnElement[bool]:
    # Digits sort before letters everywhere: from "ab" to "abg" is everything that begins with "ab".
    return table.c.digest == digest if digest else table.c.digest.between(prefix, prefix + "g")


def _image(
    files: FileStore, digest: str, row: Row[Any] | None, here: Shelf, grown_up: datetime
) -> Fault | None:
    path = files.instance_path(digest)
    there = path.is_file()
    kept = None if row is None else row.kept
    if not there:
        if kept != "yes":
            return None
        return _of_image(Code.MISSING_IMAGE, row, "the row has no file")
    if kept == "going" or (row is None and here.placed.get(digest, 0.0) > grown_up.timestamp()):
        return None
    if kept == "gone":
        return _of_image(Code.LEFT_OVER, row, "its time was over and it was to be removed")
    with told(f"instance {digest} cannot be read"):
        try:
            good = files.dataset_digest(path) == digest
        except FileNotFoundError:  # between two looks
            return None if kept != "yes" else _of_image(Code.MISSING_IMAGE, row, "the row has no file")
    if kept == "yes":
        return (
            None if good else _of_image(Code.DAMAGED_IMAGE, row, "its bytes are not those that its name says")
        )
    if not good:
        return Fault(
            Code.DAMAGED_ORPHAN, _below(files, path), "no row needs it and it is damaged", digest=digest
        )
    if row is not None:
        return _of_image(Code.FOUND_IMAGE, row, "counted as lost, and here it is")
    return Fault(Code.ORPHAN_IMAGE, _below(files, path), "whole, and no row knows it", digest=digest)


def _report(
    files: FileStore, digest: str, row: Row[Any] | None, here: Shelf, grown_up: datetime
) -> Fault | None:
    path = files.report_path(digest)
    kept = None if row is None else row.kept
    if not path.is_file():
        return _of_report(Code.MISSING_REPORT, row, "the row has no file") if kept == "yes" else None
    if kept == "going" or (row is None and here.placed.get(digest, 0.0) > grown_up.timestamp()):
        return None
    if row is None:
        return Fault(Code.ORPHAN_REPORT, _below(files, path), "no row knows it", digest=digest)
    if kept == "gone":
        return _of_report(Code.LEFT_OVER, row, "its time was over and it was to be removed")
    with told(f"report {digest} cannot be read"):
        try:
            seen = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return _of_report(Code.MISSING_REPORT, row, "the row has no file")
    if seen == digest:
        return None
    return _of_report(Code.DAMAGED_REPORT, row, "its bytes are not those that its name says")


def _of_image(code: Code, row: Row[Any] | None, detail: str) -> Fault:
    assert row is not None  # noqa: S101 - for the type checker: every caller has seen its row
    return Fault(
        code,
        f"instances/{row.digest[:2]}/{row.digest}.dcm",
        f"image {row.sop_instance_uid}: {detail}",
        row.study_instance_uid,
        row.revision,
        row.digest,
    )


def _of_report(code: Code, row: Row[Any] | None, detail: str) -> Fault:
    assert row is not None  # noqa: S101 - for the type checker: every caller has seen its row
    shown = row.what == objects.name
    of_objects = {Code.MISSING_REPORT: Code.MISSING_OBJECT, Code.DAMAGED_REPORT: Code.DAMAGED_OBJECT}
    return Fault(
        of_objects.get(code, code) if shown else code,
        f"reports/{row.digest[:2]}/{row.digest}.dcm",
        f"{'display object' if shown else 'report'} {row.sop_instance_uid}: {detail}",
        row.study_instance_uid,
        row.revision,
        row.digest,
    )


def _below(files: FileStore, path: Any) -> str:
    return str(path.relative_to(files.root))
