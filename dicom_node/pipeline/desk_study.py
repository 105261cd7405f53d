"""One study as a person reads it: its images with what each scored, its report as text, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import NodeError, NotFoundError
from dicom_node.domain.reading import ImageView, Neighbour, StudyView, WindowView
from dicom_node.pipeline import story
from dicom_node.pipeline.desk_list import Listing
from dicom_node.pipeline.desk_pictures import Pictures
from dicom_node.pipeline.headers import READ_ERRORS, read_header
from dicom_node.report import for_people, text
from dicom_node.store import marks, overview
from dicom_node.store.files import FileStore
from dicom_node.store.overview import StudyDetail

MOST_IMAGES = 100
"""Images of one study that are shown; more are no chest X-ray study."""
_SHOWN = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
_MOST_WINDOWS = 8
_LARGEST = 1e9

Row = Mapping[str, Any]


class Study:
    """Answers what the page of one study asks.

    Parameters
    ----------
    pictures
        Says for which images and normals there are pictures.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        listing: Listing,
        pictures: Pictures,
        read: Callable[..., Dataset] = read_header,
    ) -> None:
        self._engine = engine
        self._files = files
        self._listing = listing
        self._pictures = pictures
        self._read = read

    def study(self, study_instance_uid: str) -> StudyView:
        """Return one study; see `web.desk.Desk.study`."""
        with reading(self._engine) as conn:
            held = overview.show_study(conn, study_instance_uid)
            row = self._listing.row(conn, study_instance_uid)
            said = marks.history(conn, study_instance_uid)
        if row is None:
            raise NotFoundError(f"study {study_instance_uid} is not held here")
        report = held.reports[-1] if held.reports else None
        newest = max(held.reports, key=lambda one: (one["revision"], one["id"])) if report else None
        return StudyView(
            row=row,
            images=self._images(held, newest),
            report_text="" if newest is None else self._text(newest),
            report_uid="" if newest is None else str(newest["sop_instance_uid"]),
            history=tuple(story.history(held)),
            destinations=tuple(story.destinations(held)),
            work_items=held.work_items,
            events=held.events,
            marks=tuple(asdict(one) for one in said),
            objects=held.objects,
        )

    def _text(self, report: Row) -> str:
        """Return the report as text, what it concludes first; says why where its bytes cannot be read."""
        if report["kept"] != "yes":
            return "The bytes of this report are not here any more."
        try:
            return for_people.lines(text.render(self._files.read_report(report["digest"])))
        except (NodeError, *READ_ERRORS) as error:
            return f"The report cannot be read: {error}"

    def _images(self, held: StudyDetail, report: Row | None) -> tuple[ImageView, ...]:
        result: Row = {} if report is None else report["result"]
        decisive = result.get("decisive")
        by_uid = {image["sop_instance_uid"]: (n, image) for n, image in enumerate(result.get("images") or ())}
        shown = [row for row in held.instances if not row["conflict"]]
        shown.sort(key=lambda row: (row["series_instance_uid"], row["sop_instance_uid"]))
        shown = shown[:MOST_IMAGES]
        maps = self._pictures.heat_maps([row["sop_instance_uid"] for row in shown])
        images = []
        for row in shown:
            number, image = by_uid.get(row["sop_instance_uid"], (-1, {}))
            images.append(
                self._image(row, image, decisive=number == decisive, heat=row["sop_instance_uid"] in maps)
            )
        return tuple(images)

    def _image(self, row: Row, image: Row, *, decisive: bool, heat: bool) -> ImageView:
        kept = row["kept"] == "yes"
        header = self._header(row["digest"]) if kept else Dataset()
        texts = for_people.texts(header, ("Modality", "ViewPosition"))
        score: Row = image.get("score") or {}
        made_by: Row = image.get("provenance") or {}
        region: Row = image.get("region") or {}
        bank = str(made_by.get("bank_name", ""))
        identifiers = [str(one) for one in score.get("neighbours") or ()]
        pictured = self._pictures.normals(bank, identifiers) if identifiers else frozenset()
        return ImageView(
            sop_instance_uid=row["sop_instance_uid"],
            modality=texts["Modality"],
            view=texts["ViewPosition"],
            rows=_number(header, "Rows"),
            columns=_number(header, "Columns"),
            decisive=decisive,
            percentile=score.get("percentile"),
            score=score.get("value"),
            threshold=score.get("threshold"),
            z_score=score.get("z_score"),
            reason=(image.get("refusal") or {}).get("reason", "") if image else _unanswered(row),
            bank_name=bank,
            bank_hash=str(made_by.get("bank_hash", "")),
            method=str(made_by.get("algorithm", "")),
            also=tuple(_beside(one) for one in image.get("also") or ()),
            neighbours=tuple(Neighbour(one, one in pictured) for one in identifiers),
            heat_map=kept and heat,
            outline=tuple((float(c), float(r)) for c, r in region.get("outline") or ()),
            windows=_windows(header),
            kept=kept,
        )

    def _header(self, digest: str) -> Dataset:
        try:
            return self._read(self._files.instance_path(digest), _SHOWN)
        except (NodeError, *READ_ERRORS):
            return Dataset()


def _unanswered(row: Row) -> str:
    if row["kept"] in ("going", "gone"):
        return "the file was removed when its time was over"
    return "the file was damaged or missing" if row["kept"] == "lost" else "not analysed yet"


def _beside(measured: Row) -> Row:
    """Return a score by another method, flat."""
    score, made_by = measured["score"], measured["provenance"]
    return {
        "method": made_by["algorithm"],
        "bank_name": made_by["bank_name"],
        "bank_hash": made_by["bank_hash"],
        **{name: score[name] for name in ("value", "percentile", "z_score", "threshold", "above")},
    }


def _number(header: Dataset, keyword: str) -> int:
    try:
        value = int(header.get(keyword, 0) or 0)
    except (*READ_ERRORS,):
        return 0
    return value if 0 < value <= 0xFFFF else 0


def _windows(header: Dataset) -> tuple[WindowView, ...]:
    """Return the windows that the image asks for, those that can be used (PS3.3 section C.11.2.1.2)."""
    explanation, function = for_people.texts(header, _SHOWN[2:]).values()
    names = explanation.split("\\")
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    pairs = zip(_numbers(header, "WindowCenter"), _numbers(header, "WindowWidth"), strict=False)
    return tuple(
        WindowView(centre, width, function, names[n].strip() if n < len(names) else "")
        for n, (centre, width) in enumerate(islice(pairs, _MOST_WINDOWS))
        if abs(centre) < _LARGEST and (1 if function == "LINEAR" else 1e-9) <= width < _LARGEST
    )


def _numbers(header: Dataset, keyword: str) -> list[float]:
    try:
        value = header.get(keyword)
        several = isinstance(value, list) or hasattr(value, "insert")
        return [float(one) for one in (value if several else [value])]
    except (*READ_ERRORS,):
        return []
