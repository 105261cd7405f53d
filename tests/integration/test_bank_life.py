"""How one bank follows another: marks, export, verdicts, events, schedule. The builder is a fake."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select

from dicom_node.config import BankSchedule, BankSection, Config, ScoreSection
from dicom_node.db import schema
from dicom_node.db.engine import reading
from dicom_node.domain.errors import BankError
from dicom_node.pipeline import admin, banks
from dicom_node.pipeline.rebuild import Wish, export_marked, rebuild, rebuild_as_scheduled
from dicom_node.score.bank import write_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from tests.fakes import ManualClock
from tests.integration.test_pipeline import Site
from tests.unit.score.builders import bank_facts, image, unit
from tests.unit.score.test_salad import write as write_salad


def random_bank(root: Path, name: str, seed: int, dim: int = 24, **facts: Any) -> str:
    rng = np.random.default_rng(seed)
    return write_bank(
        root / name,
        vectors=unit(rng.normal(size=(12, dim))),
        head=Head(),
        calibration=Calibration.of(rng.uniform(0.1, 0.5, size=20)),
        images=[f"image-{number}" for number in range(12)],
        facts=bank_facts(**facts),
    ).bank_hash


class Banks:
    """A folder of an active bank and another one, and a builder that says what the test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hashes = {name: random_bank(root, name, seed) for seed, name in enumerate(("old", "new"))}
        self.store = BankStore(root)
        self.store.activate("old")
        self.asked: list[list[str]] = []
        self.says: dict[str, Any] = {
            "state": "not worse", "bank": "new", "bank_hash": self.hashes["new"], "active": "old",
            "active_hash": self.hashes["old"], "reasons": [], "new": None, "old": None, "labelled": None,
        }  # fmt: skip

    def build(self, arguments: Sequence[str]) -> str:
        self.asked.append(list(arguments))
        return json.dumps(self.says)


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


@pytest.fixture
def held(tmp_path: Path) -> Banks:
    return Banks(tmp_path / "banks")


def receive(site: Site, number: int, patient: str, series: int = 1) -> str:
    study = f"1.2.3.{number}"
    site.receive(
        image(
            np.random.default_rng(number).integers(0, 4096, (130, 130)), stored=12, PatientID=patient,
            StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{series}", ViewPosition="PA",
            SOPInstanceUID=f"{study}.{series}.1",
        )
    )  # fmt: skip
    return study


def details(site: Site, kind: str) -> list[dict[str, Any]]:
    with reading(site.engine) as conn:
        rows = conn.execute(select(schema.events).where(schema.events.c.kind == kind).order_by("id"))
        return [dict(row.detail) for row in rows]


def test_the_marked_studies_are_exported_with_their_patients_hashed(site: Site, tmp_path: Path) -> None:
    for number, patient in enumerate(["MUELLER1", "MUELLER1", "MUELLER2", "MUELLER3"]):
        receive(site, number, patient)
    receive(site, 2, "MUELLER2", series=2)
    for number, word in enumerate(["normal", "normal", "normal", "abnormal"]):
        admin.mark(site.engine, f"1.2.3.{number}", word, "ada", site.clock())  # type: ignore[arg-type]
    admin.mark(site.engine, "1.2.3.1", "clear", "ada", site.clock())
    out = tmp_path / "marked.csv"
    assert export_marked(site.engine, site.files, out) == 2
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 3
    assert all(Path(row["path"]).is_file() for row in rows)
    assert [row["patient_id"] for row in rows].count(rows[0]["patient_id"]) == 1
    assert rows[1]["patient_id"] == rows[2]["patient_id"]
    assert "MUELLER" not in out.read_text()
    assert "1.2.3" not in out.read_text()
    again = tmp_path / "again.csv"
    export_marked(site.engine, site.files, again)
    assert again.read_bytes() == out.read_bytes()


def test_a_bank_that_is_not_worse_takes_the_place_of_the_active_one(site: Site, held: Banks) -> None:
    images = Path("normals")
    wish = Wish(images=images, source="archive pacs, 9 studies by list")
    told = rebuild(held.root, site.engine, site.files, wish, site.clock, held.build)
    assert told["activated"]
    assert held.store.active() == ("new",)
    (asked,) = held.asked
    assert asked[asked.index("--source") + 1] == "archive pacs, 9 studies by list"
    assert asked[:3] == ["rebuild", "--like", str(held.root / "old")]
    assert asked[-2:] == ["--images", "normals"]
    assert details(site, "bank.rebuilt") == [
        {
            "bank": "new", "bank_hash": held.hashes["new"], "state": "not worse", "reasons": [], "before": "old",
            "activated": True, "force": False,
        }
    ]  # fmt: skip
    assert banks.roll_back(held.root, site.engine, site.clock()) == ("old",)
    assert details(site, "bank.rolledback") == [{"names": ["old"], "before": ["new"]}]


@pytest.mark.parametrize("state", ["worse", "undecided"])
def test_a_bank_that_is_worse_or_undecided_is_activated_by_force_only(
    state: str, site: Site, held: Banks
) -> None:
    held.says |= {"state": state, "reasons": ["because"]}
    wish = Wish(images=Path("normals"))
    assert not rebuild(held.root, site.engine, site.files, wish, site.clock, held.build)["activated"]
    assert held.store.active() == ("old",)
    forced = Wish(images=Path("normals"), force=True)
    assert rebuild(held.root, site.engine, site.files, forced, site.clock, held.build)["activated"]
    assert held.store.active() == ("new",)
    assert [told["activated"] for told in details(site, "bank.rebuilt")] == [False, True]


def test_nothing_changes_where_nothing_was_new(site: Site, held: Banks) -> None:
    held.says |= {"state": "unchanged", "bank": "old", "bank_hash": held.hashes["old"]}
    wish = Wish(images=Path("normals"), force=True)
    assert not rebuild(held.root, site.engine, site.files, wish, site.clock, held.build)["activated"]
    assert held.store.active() == ("old",)


@pytest.mark.parametrize(
    ("wish", "says", "told"),
    [
        (Wish(), {}, "no study is marked normal"),
        (Wish("away", Path("x")), {}, "the bank to rebuild is away; name an active one: old"),
        (Wish(images=Path("x")), {"active_hash": "0" * 64}, "not the one that was activated"),
        (Wish(images=Path("x")), {"bank": "gone"}, "cannot be read"),
    ],
)
def test_what_goes_wrong_leaves_the_old_bank_and_is_an_event(
    wish: Wish, says: dict[str, str], told: str, site: Site, held: Banks
) -> None:
    held.says |= says
    with pytest.raises(BankError, match=told):
        rebuild(held.root, site.engine, site.files, wish, site.clock, held.build)
    assert held.store.active() == ("old",)
    assert [told in event["reason"] for event in details(site, "bank.failed")] == [True]


def test_a_bank_activated_meanwhile_is_not_replaced(site: Site, held: Banks) -> None:
    random_bank(held.root, "third", 3)

    def build(arguments: Sequence[str]) -> str:
        held.store.activate("third")
        return held.build(arguments)

    with pytest.raises(BankError, match="not active any more"):
        rebuild(held.root, site.engine, site.files, Wish(images=Path("x")), site.clock, build)
    assert held.store.active() == ("third",)


def config_of(held: Banks, **schedule: Any) -> Config:
    return Config(
        score=ScoreSection(banks=held.root),
        bank=BankSection(schedule=BankSchedule(cron="0 3 * * sun", **schedule)),
    )


def test_the_schedule_rebuilds_once_a_minute_however_many_processes_there_are(site: Site, held: Banks) -> None:
    receive(site, 1, "P1")
    admin.mark(site.engine, "1.2.3.1", "normal", "ada", site.clock())
    config, clock = config_of(held), ManualClock()
    first = rebuild_as_scheduled(site.engine, site.files, config, clock, held.build)
    assert [told["activated"] for told in first] == [True]
    assert rebuild_as_scheduled(site.engine, site.files, config, clock, held.build) == []
    assert len(held.asked) == 1
    assert held.asked[0][-1].endswith("marked-normal.csv")
    assert not Path(held.asked[0][-1]).exists()


def test_one_bank_that_cannot_be_rebuilt_does_not_hold_up_the_next(site: Site, held: Banks) -> None:
    random_bank(held.root, "third", 3)
    held.store.activate("third", "old")

    def build(arguments: Sequence[str]) -> str:
        if arguments[2].endswith("third"):
            raise BankError("it was built with moon, which no rebuild repeats")
        return held.build(arguments)

    config = config_of(held, rebuild="normals", labelled=Path("labels.csv"))
    (told,) = rebuild_as_scheduled(site.engine, site.files, config, site.clock, build)
    assert told["bank"] == "new"
    assert held.store.active() == ("third", "new")
    assert held.asked[0][-4:] == ["--labelled", "labels.csv", "--images", "normals"]
    assert len(details(site, "bank.failed")) == 1


def test_the_schedule_rebuilds_banks_of_every_kind_those_that_are_trained_last(site: Site, held: Banks) -> None:
    angles = write_salad(held.root / "angles").bank_hash
    held.store.activate("angles", "old")

    def build(arguments: Sequence[str]) -> str:
        name = Path(arguments[2]).name
        held.says |= {"active": name, "active_hash": held.hashes.get(name, angles), "state": "unchanged"}
        return held.build(arguments)

    told = rebuild_as_scheduled(site.engine, site.files, config_of(held, rebuild="normals"), site.clock, build)
    assert [verdict["activated"] for verdict in told] == [False, False]
    assert [Path(arguments[2]).name for arguments in held.asked] == ["old", "angles"]
    assert held.store.active() == ("angles", "old")


def test_banks_of_no_more_use_are_found_and_removed_only_when_told_to(site: Site, held: Banks) -> None:
    for seed, name in enumerate(("a", "b", "reported", "never"), start=10):
        random_bank(held.root, name, seed)
    for name in ("a", "b", "old"):
        held.store.activate(name)
    (held.root / "new" / "manifest.json").write_text("{}")
    with site.engine.begin() as conn:
        conn.execute(
            schema.reports.insert().values(
                study_instance_uid="1.2", revision=1, bank_hash="", sop_instance_uid="1.2.1", sop_class_uid="1",
                series_instance_uid="1.2.2", digest="d", verdict="scored", created_at=site.clock(),
                result={"images": [{"provenance": {"bank_hash": held.store.manifest("reported").bank_hash}}]},
            )
        )  # fmt: skip

    def tidy(keep: int, *, remove: bool) -> dict[str, str]:
        rows = banks.tidy(held.root, site.engine, keep, site.clock(), remove=remove)
        return {row["name"]: row["why"] for row in rows if not row["goes"]}

    assert tidy(1, remove=False) == {
        "old": "is active", "b": "was active lately (last 1)", "reported": "made reports", "new": "cannot be read",
    }  # fmt: skip
    assert set(held.store.names()) == {"a", "b", "reported", "never", "old", "new"}
    tidy(1, remove=True)
    assert set(held.store.names()) == {"b", "reported", "old", "new"}
    assert {told["name"] for told in details(site, "bank.removed")} == {"a", "never"}
    assert banks.roll_back(held.root, site.engine, site.clock()) == ("b",)


def test_the_differences_of_two_banks_are_told_by_field(held: Banks) -> None:
    random_bank(held.root, "other", 0, k=3, views=("centre",))
    rows = {row["field"]: (row["old"], row["other"]) for row in banks.differences(held.root, "old", "other")}
    assert rows["k"] == (1, 3)
    assert rows["views"] == (["squash"], ["centre"])
    assert "population.site" not in rows
    assert not any(field.startswith("files") for field in rows)
