from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, Table, insert, select
from sqlalchemy.exc import IntegrityError

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.types import Ingested, Instance
from dicom_node.store import instances, studies
from dicom_node.store.files import FileStore

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HELD = (schema.instances, schema.revisions, schema.events)

Take = Callable[..., Ingested]


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", 0)


def rows(conn: Connection, *tables: Table) -> list[tuple[object, ...]]:
    return [tuple(row) for table in tables for row in conn.execute(select(table).order_by(*table.primary_key))]


def history(conn: Connection) -> list[str]:
    return list(conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id)).scalars())


def sops(found: tuple[Instance, ...]) -> list[str]:
    return [instance.sop_instance_uid for instance in found]


def test_a_new_image_opens_the_first_revision_of_its_study(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        assert take(conn) is Ingested.NEW
        (row,) = conn.execute(select(schema.instances)).all()
        assert (row.study_instance_uid, row.revision, row.conflict) == ("1.2.3", 1, False)
        assert (row.received_at, row.size, row.association_id) == (T0, 1000, "A")
        assert history(conn) == ["revision.opened", "instance.stored"]


def test_a_second_image_joins_the_open_revision_and_moves_its_quiet_time(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        assert take(conn, "1.2.3.1.2", at=T0 + SECOND) is Ingested.NEW
        (revision,) = conn.execute(select(schema.revisions)).all()
        assert (revision.number, revision.opened_at) == (1, T0)
        assert revision.last_received_at == T0 + SECOND


def test_an_image_after_the_closing_opens_the_next_revision(
    engine: Engine, take: Take, files: FileStore
) -> None:
    with writing(engine) as conn:
        take(conn, "1.1")
        assert studies.close_revision(conn, "1.2.3", 1, T0 + SECOND)
        assert take(conn, "1.2", at=T0 + 2 * SECOND) is Ingested.NEW
        assert sops(instances.of_revision(conn, files, "1.2.3", 1)) == ["1.1"]
        assert sops(instances.of_revision(conn, files, "1.2.3", 2)) == ["1.1", "1.2"]


def test_a_duplicate_changes_nothing(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        before = rows(conn, *HELD)
    with writing(engine) as conn:
        assert take(conn, association="B", at=T0 + SECOND) is Ingested.DUPLICATE
        assert rows(conn, *HELD) == before


def test_a_duplicate_to_a_closed_revision_opens_none(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        studies.close_revision(conn, "1.2.3", 1, T0 + SECOND)
        before = rows(conn, *HELD)
        assert take(conn, at=T0 + 2 * SECOND) is Ingested.DUPLICATE
        assert rows(conn, *HELD) == before


def test_other_bytes_under_a_known_uid_are_kept_apart(engine: Engine, take: Take, files: FileStore) -> None:
    with writing(engine) as conn:
        take(conn)
        assert take(conn, content="other", at=T0 + SECOND) is Ingested.CONFLICT
        (good,) = instances.of_revision(conn, files, "1.2.3", 1)
        (apart,) = instances.of_revision(conn, files, "1.2.3", 1, conflicts=True)
        assert good.digest != apart.digest
        assert apart.path == files.instance_path(apart.digest)
        assert history(conn) == ["revision.opened", "instance.stored", "instance.conflict"]


def test_a_conflict_neither_delays_nor_reopens_its_study(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        before = rows(conn, schema.revisions)
        take(conn, content="second", at=T0 + SECOND)
        assert rows(conn, schema.revisions) == before
        studies.close_revision(conn, "1.2.3", 1, T0 + SECOND)
        before = rows(conn, schema.revisions)
        take(conn, content="third", at=T0 + 2 * SECOND)
        assert rows(conn, schema.revisions) == before


def test_a_conflict_that_names_an_unknown_study_opens_it_so_that_it_is_answered(
    engine: Engine, take: Take, files: FileStore
) -> None:
    with writing(engine) as conn:
        take(conn)
        assert take(conn, content="other", study="1.9") is Ingested.CONFLICT
        assert studies.latest_revision(conn, "1.9") == 1
        assert instances.of_revision(conn, files, "1.9", 1) == ()
        assert len(instances.of_revision(conn, files, "1.9", 1, conflicts=True)) == 1
        assert ("1.9", 1) in studies.quiet(conn, T0 + 90 * SECOND, 5, 60)


def test_the_same_conflicting_bytes_again_are_a_conflict_again_and_change_nothing(
    engine: Engine, take: Take
) -> None:
    with writing(engine) as conn:
        take(conn)
        take(conn, content="other")
        before = rows(conn, *HELD)
        assert take(conn, content="other", at=T0 + SECOND) is Ingested.CONFLICT
        assert take(conn, at=T0 + SECOND) is Ingested.DUPLICATE
        assert rows(conn, *HELD) == before


def test_the_database_itself_holds_one_good_image_for_each_uid(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        (row,) = conn.execute(select(schema.instances)).mappings().all()
    again = {**row, "id": 99, "digest": "0" * 64}
    with pytest.raises(IntegrityError), writing(engine) as conn:
        conn.execute(insert(schema.instances).values(again))
    with writing(engine) as conn:
        conn.execute(insert(schema.instances).values({**again, "conflict": True}))


def test_images_are_ordered_by_uid_and_not_by_arrival(engine: Engine, take: Take, files: FileStore) -> None:
    with writing(engine) as conn:
        for sop, series in (("1.9", "1.2"), ("1.5", "1.1"), ("1.7", "1.1"), ("1.1", "1.2")):
            take(conn, sop, series=series)
        assert sops(instances.of_revision(conn, files, "1.2.3", 1)) == ["1.5", "1.7", "1.1", "1.9"]


def test_of_eight_associations_with_the_same_image_one_is_new(engine: Engine, take: Take) -> None:
    start = threading.Barrier(8)

    def send(number: int) -> Ingested:
        start.wait(30)
        with writing(engine) as conn:
            return take(conn, association=f"A{number}", at=T0 + number * SECOND)

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(send, range(8)))
    assert answers == {Ingested.NEW: 1, Ingested.DUPLICATE: 7}
    with reading(engine) as conn:
        assert history(conn) == ["revision.opened", "instance.stored"]
        (revision,) = conn.execute(select(schema.revisions)).all()
        assert revision.opened_at == revision.last_received_at


def test_of_eight_associations_with_different_bytes_under_one_uid_one_is_new(
    engine: Engine, take: Take, files: FileStore
) -> None:
    start = threading.Barrier(8)

    def send(number: int) -> Ingested:
        start.wait(30)
        with writing(engine) as conn:
            return take(conn, content=f"bytes {number}", study=f"1.2.{number}", association=f"A{number}")

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(send, range(8)))
    assert answers == {Ingested.NEW: 1, Ingested.CONFLICT: 7}
    with reading(engine) as conn:
        found = Counter(row.conflict for row in conn.execute(select(schema.instances)))
        assert found == {False: 1, True: 7}
        assert {studies.latest_revision(conn, f"1.2.{number}") for number in range(8)} == {1}


def test_many_images_of_one_study_at_once_share_one_revision(
    engine: Engine, take: Take, files: FileStore
) -> None:
    start = threading.Barrier(8)

    def send(number: int) -> Ingested:
        start.wait(30)
        with writing(engine) as conn:
            return take(conn, f"1.2.3.1.{number}", association=f"A{number}")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(8))) == {Ingested.NEW}
    with reading(engine) as conn:
        assert studies.latest_revision(conn, "1.2.3") == 1
        assert len(instances.of_revision(conn, files, "1.2.3", 1)) == 8
