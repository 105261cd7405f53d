"""Many studies as rows of the tables, without images or torch: for lists that have to be long.

Everything follows from the study's number, so that a test can say what a list has to show. Files are written only
where they are asked for: a header each, of a hostile or an ordinary patient, and no pixels worth the name.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from io import BytesIO
from typing import Any

from pydicom.dataset import FileDataset
from sqlalchemy import Engine

from dicom_node.db import schema
from dicom_node.db.engine import writing
from dicom_node.domain.states import State
from dicom_node.domain.types import ImageResult, Kind, Refusal, Score, StudyResult, Verdict
from dicom_node.store.files import FileStore
from tests.fakes import PROVENANCE
from tests.phantoms import chest_dataset

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
NAMES = ("Smith^John", "Müller^Jürgen", "Yamada^Tarou=山田^太郎", "O'Neil^Ann", "Иванов^Иван")


def study_uid(number: int) -> str:
    return f"2.25.{1000 + number}"


def image_uid(number: int) -> str:
    return f"2.25.7{number:06d}"


def report_uid(number: int) -> str:
    return f"2.25.8{number:06d}"


def percentile(number: int) -> float:
    """Return the percentile of a study's image: all over the scale, none twice among a thousand."""
    return (number * 37 % 1000) / 10


def fate(number: int) -> str:
    """Return what became of a study: of twenty, one each is arriving, queued, being analysed, failed, not analysed."""
    return {1: "arriving", 2: "queued", 3: "analysing", 4: "failed", 5: "not analysed"}.get(
        number % 20, "answered"
    )


def received_at(number: int) -> datetime:
    return NOW - timedelta(minutes=number)


def result(number: int) -> StudyResult:
    image = ImageResult(DX, image_uid(number), f"2.25.6{number:06d}")
    if fate(number) in ("failed", "not analysed"):
        verdict = Verdict.FAILED if fate(number) == "failed" else Verdict.NOT_ANALYSED
        refused = replace(image, refusal=Refusal("test", "it is no frontal chest"))
        return StudyResult(study_uid(number), 1, verdict, (refused,), "it is no frontal chest")
    at = percentile(number)
    score = Score(at / 100, at, (at - 50) / 20, 0.95, at > 95, (at / 100,), ("n1", "n2", "n3"))
    verdict = Verdict.ABOVE if at > 95 else Verdict.BELOW
    done = replace(image, score=score, provenance=PROVENANCE)
    return StudyResult(study_uid(number), 1, verdict, (done,), decisive=0)


def fill(engine: Engine, studies: int, *, files: FileStore | None = None, first: int = 0) -> None:
    """Write `studies` studies of one image each, two destinations ("pacs" has it, "vna" mostly), the newest first.

    Parameters
    ----------
    files
        Where a file is written for each image; without, none is there.
    """
    rows: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in ("revisions", "instances", "work_items", "reports", "deliveries", "marks", "events")
    }
    for number in range(first, first + studies):
        _study(rows, number, _digest(number) if files is None else write_image(files, number))
    with writing(engine) as conn:
        for name, values in rows.items():
            if values:
                conn.execute(schema.metadata.tables[name].insert(), values)


def _digest(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def _study(rows: dict[str, list[dict[str, Any]]], number: int, digest: str) -> None:
    study, at, became = study_uid(number), received_at(number), fate(number)
    arriving = became == "arriving"
    rows["revisions"].append(
        {
            "study_instance_uid": study,
            "number": 1,
            "opened_at": at,
            "last_received_at": at,
            "closed_at": None if arriving else at + timedelta(seconds=5),
        }
    )
    rows["instances"].append(
        {
            "sop_instance_uid": image_uid(number),
            "sop_class_uid": CR if number % 3 == 0 else DX,
            "series_instance_uid": f"2.25.6{number:06d}",
            "study_instance_uid": study,
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "digest": digest,
            "size": 1000,
            "revision": 1,
            "conflict": False,
            "association_id": str(number),
            "calling_ae_title": f"CR{number % 4}",
            "received_at": at,
        }
    )
    rows["events"].append(_event(at, "instance.stored", study))
    if arriving:
        return
    state = {
        "queued": State.SCHEDULED,
        "analysing": State.IN_PROGRESS,
        "failed": State.FAILED,
    }.get(became, State.COMPLETED)
    rows["work_items"].append(_item(Kind.ANALYSE, study, at, state, priority=1 if number % 50 == 2 else 5))
    if state is State.FAILED:
        rows["events"].append(_event(at, "workitem.failed", study, reason="it cost the scoring process"))
    if became in ("queued", "analysing"):
        return
    made = result(number)
    decisive = made.images[0].score
    rows["reports"].append(
        {
            "study_instance_uid": study,
            "revision": 1,
            "bank_hash": "b" * 64,
            "sop_instance_uid": report_uid(number),
            "sop_class_uid": SR,
            "series_instance_uid": f"2.25.5{number:06d}",
            "digest": sha256(f"report {number}".encode()).hexdigest(),
            "verdict": made.verdict.value,
            "result": asdict(made),
            "created_at": at + timedelta(seconds=20),
            "percentile": decisive.percentile if decisive else None,
            "z_score": decisive.z_score if decisive else None,
        }
    )
    for name, fails in (("pacs", False), ("vna", number % 10 == 0)):
        done = State.FAILED if fails else State.COMPLETED
        rows["work_items"].append(
            _item(Kind.DELIVER, study, at, done, name, "refused: 0xA900" if fails else "")
        )
        if not fails:
            rows["deliveries"].append(
                {
                    "sop_instance_uid": report_uid(number),
                    "destination": name,
                    "status": 0,
                    "sent_at": at + timedelta(seconds=30),
                    "sent_as": SR,
                    "confirmed": "committed" if name == "pacs" else "",
                }
            )
    if number % 25 == 0:
        word = "normal" if number % 50 else "abnormal"
        rows["marks"].append({"study_instance_uid": study, "mark": word, "said_by": "rad", "at": at})


def _event(at: datetime, kind: str, study: str, **detail: str) -> dict[str, Any]:
    return {"at": at, "kind": kind, "study_instance_uid": study, "detail": detail}


def _item(
    kind: Kind,
    study: str,
    at: datetime,
    state: State,
    destination: str = "",
    reason: str = "",
    priority: int = 5,
) -> dict[str, Any]:
    return {
        "kind": kind.value,
        "study_instance_uid": study,
        "revision": 1,
        "destination": destination,
        "priority": priority,
        "state": state.value,
        "attempts": 1,
        "available_at": at,
        "reason": reason,
        "created_at": at,
        "updated_at": at,
        "bank": "",
    }


def header(number: int, **overrides: Any) -> FileDataset:
    """Return an image of a study, its pixels cut down to four."""
    ds = deepcopy(_small())
    values = {
        "StudyInstanceUID": study_uid(number),
        "SeriesInstanceUID": f"2.25.6{number:06d}",
        "SOPInstanceUID": image_uid(number),
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": NAMES[number % len(NAMES)],
        "PatientID": f"P{number:05d}",
        "AccessionNumber": f"A{number:05d}",
        **overrides,
    }
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


@cache
def _small() -> FileDataset:
    ds = chest_dataset(seed=1)
    ds.Rows = ds.Columns = 2
    ds.PixelData = b"\0" * 8
    return ds


def write_image(files: FileStore, number: int, **overrides: Any) -> str:
    """Put an image into the store, without its syncs; return the digest under which its row finds it."""
    digest = _digest(number)
    path = files.instance_path(digest)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    buffer = BytesIO()
    header(number, **overrides).save_as(buffer, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())
    path.chmod(0o600)
    return digest
