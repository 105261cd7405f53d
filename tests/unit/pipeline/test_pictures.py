"""What was drawn is remembered for as long as its image is held, and no longer."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, update

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    CannotDecodeError,
    NotFoundError,
    OutOfResourcesError,
    PoisonError,
    StoreError,
)
from dicom_node.domain.types import Received, Report, Verdict
from dicom_node.pipeline import pictures
from dicom_node.pipeline.pictures import NodePictures
from dicom_node.score.normal_pictures import FILE, save_normals
from dicom_node.store import heat_maps, instances, reports, retention
from dicom_node.store.files import FileStore

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Drawer:
    """Draws the name of the file, counts, and fails where it was told to."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, str]] = []
        self.fails: Exception | None = None
        self.waits = threading.Event()
        self.waits.set()

    def draw(self, path: Path, kind: str) -> bytes:
        self.drawn.append((path.name, kind))
        self.waits.wait(10)
        if self.fails is not None:
            raise self.fails
        return f"{kind} of {path.name}".encode()

    def rest(self, _seconds: float) -> bool:
        return True

    def close(self) -> None:
        pass


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def drawer() -> Drawer:
    return Drawer()


@pytest.fixture
def made(engine: Engine, tmp_path: Path, drawer: Drawer) -> NodePictures:
    (tmp_path / "pictures").mkdir(mode=0o700)
    return NodePictures(engine, tmp_path / "pictures", drawer, tmp_path / "banks")  # type: ignore[arg-type]


@pytest.fixture
def take(engine: Engine) -> Callable[[str], str]:
    """Return a function that takes an image in and returns its digest."""

    def take(name: str) -> str:
        with writing(engine) as conn:
            instances.add(
                conn,
                Received(
                    path=Path("unused"),
                    dataset_offset=0,
                    sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
                    sop_instance_uid=f"1.2.3.1.{name}",
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    calling_ae_title="MODALITY",
                    called_ae_title="DICOMNODE",
                    peer_address="192.0.2.1",
                    association_id="A",
                    received_at=AT,
                ),
                study_instance_uid="1.2.3",
                series_instance_uid="1.2.3.1",
                digest=digest_of(name),
                size=1000,
                at=AT,
            )
        return digest_of(name)

    return take


def cached(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").rglob("*") if path.is_file()}


def test_a_picture_is_drawn_once_and_its_file_is_the_owner_s_alone(
    made: NodePictures, drawer: Drawer, tmp_path: Path
) -> None:
    digest = digest_of("1")
    first = made.picture(Path("one.dcm"), digest, "thumbnail")
    assert made.picture(Path("one.dcm"), digest, "thumbnail") == first == b"thumbnail of one.dcm"
    assert made.picture(Path("one.dcm"), digest, "image") == b"image of one.dcm"
    assert drawer.drawn == [("one.dcm", "thumbnail"), ("one.dcm", "image")]
    assert cached(tmp_path) == {f"{digest}.jpg", f"{digest}.png"}
    place = tmp_path / "pictures" / digest[:2]
    assert (place.stat().st_mode & 0o777, (place / f"{digest}.jpg").stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_cache_may_go_at_any_time(made: NodePictures, tmp_path: Path) -> None:
    made.picture(Path("one.dcm"), digest_of("1"), "thumbnail")
    for path in (tmp_path / "pictures").rglob("*.jpg"):
        path.unlink()
    assert made.picture(Path("one.dcm"), digest_of("1"), "thumbnail") == b"thumbnail of one.dcm"


def test_many_who_ask_for_one_picture_have_it_drawn_once(made: NodePictures, drawer: Drawer) -> None:
    drawer.waits.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(made.picture, Path("one.dcm"), digest_of("1"), "image") for _ in range(8)]
        drawer.waits.set()
        assert {one.result() for one in asked} == {b"image of one.dcm"}
    assert len(drawer.drawn) == 1
    assert not made._drawing


def test_an_image_without_a_picture_is_not_tried_again_and_again(made: NodePictures, drawer: Drawer) -> None:
    drawer.fails = CannotDecodeError("there is no picture: Rows is 0")
    for _ in range(2):
        with pytest.raises(NotFoundError, match="Rows is 0"):
            made.picture(Path("one.dcm"), digest_of("1"), "thumbnail")
    assert len(drawer.drawn) == 1


def test_an_image_without_a_picture_is_tried_again_after_a_while_each_time_a_longer_one(
    engine: Engine, drawer: Drawer, tmp_path: Path
) -> None:
    now = [0.0]
    made = NodePictures(engine, tmp_path / "pictures", drawer, tmp_path, clock=lambda: now[0])  # type: ignore[arg-type]
    drawer.fails = PoisonError("the image ended the process that draws pictures")
    tried = []
    for minute in range(40):
        now[0] = 60.0 * minute
        with pytest.raises(NotFoundError, match="ended the process"):
            made.picture(Path("one.dcm"), digest_of("1"), "thumbnail")
        if len(drawer.drawn) > len(tried):
            tried.append(minute)
    assert tried == [0, 1, 3, 7, 15, 31]
    drawer.fails = None
    now[0] = 60.0 * 63
    (tmp_path / "pictures").mkdir()
    assert made.picture(Path("one.dcm"), digest_of("1"), "thumbnail") == b"thumbnail of one.dcm"
    assert made.picture(Path("one.dcm"), digest_of("1"), "image") == b"image of one.dcm"


def test_a_full_disk_costs_the_cache_and_not_the_picture(
    engine: Engine, drawer: Drawer, tmp_path: Path
) -> None:
    def full(_bytes: int) -> None:
        raise StoreError("the disk is full")

    made = NodePictures(engine, tmp_path / "pictures", drawer, tmp_path, full)  # type: ignore[arg-type]
    assert made.picture(Path("one.dcm"), digest_of("1"), "thumbnail")
    assert cached(tmp_path) == set()


def test_thumbnails_of_what_came_are_drawn_before_anybody_asks(
    made: NodePictures, drawer: Drawer, take: Callable[[str], str], tmp_path: Path
) -> None:
    digests = [take(name) for name in "12"]
    assert made.draw_ahead(lambda digest: Path(f"{digest[:4]}.dcm")) == 2
    assert cached(tmp_path) == {f"{digest}.jpg" for digest in digests}
    assert made.draw_ahead(Path) == 0
    take("3")
    drawer.fails = OutOfResourcesError("too many wait")
    assert made.draw_ahead(Path) == 1
    drawer.fails = None
    assert made.draw_ahead(Path) == 1
    assert len(cached(tmp_path)) == 3


def test_what_is_of_images_no_longer_held_is_swept(
    made: NodePictures, take: Callable[[str], str], engine: Engine, tmp_path: Path
) -> None:
    held, gone = take("1"), take("2")
    for digest in (held, gone, digest_of("never taken")):
        made.picture(Path("x.dcm"), digest, "thumbnail")
    with writing(engine) as conn:
        conn.execute(update(schema.instances).where(schema.instances.c.digest == gone).values(kept="gone"))
    assert made.sweep() == 2
    assert cached(tmp_path) == {f"{held}.jpg"}


def test_beyond_its_bound_what_was_not_looked_at_for_longest_goes_first(
    made: NodePictures, take: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [take(name) for name in "123"]
    for age, digest in enumerate(digests):
        made.picture(Path("x.dcm"), digest, "thumbnail")
        os.utime(tmp_path / "pictures" / digest[:2] / f"{digest}.jpg", (1000 + age, 1000 + age))
    made.picture(Path("x.dcm"), digests[0], "thumbnail")  # looked at now
    monkeypatch.setattr(pictures, "LARGEST_CACHE", 2 * len(b"thumbnail of x.dcm"))
    assert made.sweep() == 1
    assert cached(tmp_path) == {f"{digests[0]}.jpg", f"{digests[2]}.jpg"}


def test_retention_takes_an_image_s_pictures_with_its_file(
    made: NodePictures, take: Callable[[str], str], engine: Engine, tmp_path: Path
) -> None:
    files, digest = FileStore(tmp_path, 0), take("1")
    files.instance_path(digest).parent.mkdir(parents=True, exist_ok=True)
    files.instance_path(digest).write_bytes(b"x")
    made.picture(Path("x.dcm"), digest, "thumbnail")
    made.picture(Path("x.dcm"), digest, "image")
    with writing(engine) as conn:
        conn.execute(update(schema.instances).values(kept="going"))
        assert retention.remove_going(conn, files, 10) == 1
    assert cached(tmp_path) == set()


def test_the_newest_revision_s_heat_map_is_shown_and_goes_with_the_images(
    made: NodePictures, take: Callable[[str], str], engine: Engine
) -> None:
    take("1")
    with pytest.raises(NotFoundError):
        made.heat_map("1.2.3.1.1")
    with writing(engine) as conn:
        for revision, png in ((2, b"second"), (1, b"first"), (2, b"again")):
            heat_maps.put(conn, "1.2.3", "1.2.3.1.1", revision, png, AT)
    assert made.heat_map("1.2.3.1.1") == b"again"
    assert made.heat_maps(["1.2.3.1.1", "1.2.3.1.2"]) == {"1.2.3.1.1"}
    with writing(engine) as conn:
        study = retention.Over("1.2.3", 2, 1000, 1)
        retention.let_images_go(conn, study, "old", AT)
    with reading(engine) as conn:
        assert heat_maps.newest(conn, "1.2.3.1.1") is None


def test_no_heat_map_lies_over_what_a_later_report_says(
    made: NodePictures, take: Callable[[str], str], engine: Engine
) -> None:
    take("1")

    def answer(revision: int) -> None:
        report = Report("1.2.840.10008.5.1.4.1.1.88.34", f"1.2.3.9.{revision}", "1.2.3.9", "1.2.3", b"")
        with writing(engine) as conn:
            reports.add(
                conn,
                report,
                digest=f"{revision}",
                revision=revision,
                bank_hash="",
                verdict=Verdict.ABOVE,
                result={},
                at=AT,
            )

    answer(1)
    with writing(engine) as conn:
        heat_maps.put(conn, "1.2.3", "1.2.3.1.1", 1, b"first", AT)
    assert made.heat_map("1.2.3.1.1") == b"first"
    assert made.heat_maps(["1.2.3.1.1"]) == {"1.2.3.1.1"}
    answer(2)
    assert made.heat_maps(["1.2.3.1.1"]) == frozenset()
    with pytest.raises(NotFoundError):
        made.heat_map("1.2.3.1.1")


def test_a_bank_s_normals_are_shown_where_it_carries_their_pictures(made: NodePictures, tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff" + bytes(np.arange(50, dtype=np.uint8))
    (tmp_path / "banks" / "chest").mkdir(parents=True)
    (tmp_path / "banks" / "chest" / FILE).write_bytes(save_normals({"abc": jpeg, "bad": b"<svg>"}))
    assert made.normals("chest", ["abc", "other"]) == {"abc"}
    assert made.normal("chest", "abc") == jpeg
    for bank, identifier in (("chest", "other"), ("chest", "bad"), ("none", "abc"), ("../chest", "abc")):
        with pytest.raises(NotFoundError):
            made.normal(bank, identifier)
    assert made.normals("../banks/chest", ["abc"]) == frozenset()


def test_a_damaged_file_of_pictures_is_as_good_as_none(made: NodePictures, tmp_path: Path) -> None:
    (tmp_path / "banks" / "chest").mkdir(parents=True)
    (tmp_path / "banks" / "chest" / FILE).write_bytes(b"\xff" * 100)
    assert made.normals("chest", ["abc"]) == ()
    with pytest.raises(NotFoundError, match="cannot be read"):
        made.normal("chest", "abc")
