"""What the fake desk shows of one study, its pictures, the banks and the node."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from dicom_node.domain.reading import (
    BankView,
    HealthView,
    ImageView,
    Neighbour,
    PeerView,
    Progress,
    StudyRow,
    StudyView,
    WindowView,
)
from dicom_node.score.picture import thumbnail, whole
from tests.phantoms import chest
from training.phantoms import Lesion

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SCRIPT = "<script>document.title='stolen'</script>"


def uid(number: int) -> str:
    return f"2.25.{100 + number}"


def image_uid(number: int, which: int = 0) -> str:
    return f"2.25.7{number:04d}{which}"


def view_of(row: StudyRow, number: int) -> StudyView:
    scored = row.percentile is not None
    image = ImageView(
        sop_instance_uid=image_uid(number),
        modality=row.modalities[0],
        view="PA",
        rows=512,
        columns=420,
        decisive=True,
        percentile=row.percentile,
        score=row.score,
        threshold=0.675 if scored else None,
        z_score=1.9 if scored else None,
        reason=row.reason,
        bank_name="site-a" if scored else "",
        bank_hash="5f" * 32 if scored else "",
        method="Deep kNN" if scored else "",
        also=({"method": "SALAD", "bank_name": "site-s", "bank_hash": "a1" * 32, "value": 3.4, "percentile": 91.0,
               "z_score": 1.2, "threshold": 4.0, "above": False},) if scored else (),
        neighbours=tuple(Neighbour(f"n{k}", k != 9) for k in (1, 4, 9)) if scored else (),
        heat_map=scored,
        outline=((84.0, 136.0), (152.0, 136.0), (156.0, 200.0), (88.0, 208.0)) if scored else (),
        windows=(
            WindowView(2048.0, 3000.0, name="NORMAL"),
            WindowView(1400.0, 1800.0, name="LUNG " + SCRIPT),
            WindowView(2600.0, 2000.0, "SIGMOID"),
        ),
        kept=True,
    )  # fmt: skip
    images = [image]
    if row.images == 2:
        images.append(replace(image, sop_instance_uid=image_uid(number, 1), view="LL", decisive=False, heat_map=False,
                              outline=(), also=(), neighbours=(), percentile=None, score=None, threshold=None,
                              z_score=None, bank_name="", bank_hash="", method="", reason="lateral"))  # fmt: skip
    answered = row.progress is Progress.ANSWERED
    return StudyView(
        row=row,
        images=tuple(images),
        report_text=REPORT if scored else "",
        report_uid="2.25.9" if scored else "",
        history=({"revision": 1, "why": "images", "closed_at": AT, "images": row.images, "bank": "site-a",
                  "verdict": row.verdict, "reason": row.reason, "report": "2.25.9", "supersedes": []},),
        destinations=tuple(
            {"revision": 1, "destination": one.destination, "state": one.state, "sent_as": "Enhanced SR",
             "sop_instance_uid": "2.25.9", "objects": 1, "sent_at": AT, "item": one.item, "attempts": 3,
             "reason": one.reason} for one in row.deliveries),
        work_items=(
            {"id": 30 + number, "kind": "analyse", "revision": 1, "destination": "", "priority": row.priority,
             "state": "COMPLETED" if answered else "SCHEDULED", "attempts": 1, "reason": ""},
            {"id": 60 + number, "kind": "deliver", "revision": 1, "destination": "research", "priority": 5,
             "state": "FAILED", "attempts": 9, "reason": "refused: 0xA900 of the PACS"},
        ),
        events=tuple({"at": AT + timedelta(seconds=n), "kind": kind, "detail": {"revision": 1, "why": SCRIPT}}
                     for n, kind in enumerate(("instance.stored", "revision.closed", "report.made"))),
        marks=({"mark": row.mark, "said_by": "rad", "at": AT},) if row.mark else (),
        objects=({"sop_instance_uid": "2.25.10", "kind": "heat map"},) if scored else (),
    )  # fmt: skip


REPORT = """CHEST X-RAY: DISTANCE TO NORMAL

Conclusion: above threshold
The image is more unusual than 97.4 of 100 normals of the bank.

Findings
  Score                0.687
  Threshold            0.675
  Percentile           97.4 %

Not a medical device. The result is unverified."""


def bank(name: str, *, active: bool = False) -> BankView:
    at = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
    return BankView(
        name, ("5f" if active else "c3") * 32, active, "deep-knn", "2026-02-01T08:00:00+00:00", 1200, 300, "held-out",
        "adults, PA", SCRIPT, "efficientnet-lite0", 5, 0.675, 0.05,
        tuple((float(p), 0.31 + 0.004 * p + (0.12 * (p / 100) ** 6)) for p in at),
        (("n17", 0.81), ("n204", 0.77)), f"# {name}\n\nMade from 1200 normals.",
    )  # fmt: skip


def health() -> HealthView:
    return HealthView(
        at=AT,
        version="1.0",
        ae_title="DICOMNODE",
        queue=({"kind": "analyse", "state": "SCHEDULED", "items": 12},
               {"kind": "deliver", "state": "FAILED", "items": 3}),
        oldest_due_seconds=74.0,
        free_bytes=212_000_000_000,
        reserve_bytes=2_000_000_000,
        total_bytes=500_000_000_000,
        peers=(PeerView("CR_ROOM1", "sender", AT, "ok", "from 10.1.1.7"), PeerView("pacs", "destination", AT, "ok"),
               PeerView("research", "destination", None, "away", "14 waiting", "connection refused", AT),
               PeerView("vna", "archive", AT, "ok", "VNA at 10.1.1.20:104; 3 waiting"),
               PeerView("ris", "modality worklist", None, "unused")),
        traffic=({"modality": "DX", "calling_ae_title": "CR_ROOM1", "images": 4120, "last_at": AT},),
        errors=({"at": AT, "what": "workitem.failed deliver research", "why": "refused: 0xA900", "study_instance_uid":
                 uid(0), "work_item_id": 60},),
        due=({"study_instance_uid": uid(99), "due_at": AT, "state": "missed"},),
    )  # fmt: skip


@cache
def picture(seed: int, kind: str) -> bytes:
    lesion: Lesion | None = "nodule" if seed % 3 == 0 else None
    grey = np.asarray(chest(seed, lesion, (512, 420)).image, dtype=np.float32)
    grey = (grey - grey.min()) / np.ptp(grey)
    if kind == "heat-map":
        out = BytesIO()
        rows, columns = np.mgrid[0:128, 0:105]
        bump = np.exp(-((rows - 43) ** 2 + (columns - 30) ** 2) / 120)
        heat = np.zeros((128, 105, 4), np.uint8)
        heat[..., 0], heat[..., 1], heat[..., 3] = 255, np.uint8(160 * (1 - bump)), np.uint8(230 * bump)
        Image.fromarray(heat, "RGBA").save(out, "PNG")
        return out.getvalue()
    return thumbnail(grey) if kind == "thumbnail" else whole(grey, (0.0, 4095.0), deep=True)
