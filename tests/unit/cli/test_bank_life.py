"""The commands of a bank's life, and the mark; what they do is tested where it is done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.config import Db
from dicom_node.db.engine import open_engine, writing
from dicom_node.db.migrate import upgrade
from dicom_node.domain.errors import DatabaseError
from dicom_node.pipeline import admin
from dicom_node.score.bank_store import BankStore
from dicom_node.store import instances
from tests.integration.test_bank_life import random_bank
from tests.unit.cli.test_commands import run
from tests.unit.store.conftest import T0, received


@pytest.fixture
def banks(tmp_path: Path) -> BankStore:
    for seed, name in enumerate(("one", "two", "three")):
        random_bank(tmp_path / "banks", name, seed)
    store = BankStore(tmp_path / "banks")
    store.activate("one")
    return store


def test_activate_and_rollback_are_one_command_each(tmp_path: Path, banks: BankStore) -> None:
    code, said = run(tmp_path, "", "bank", "activate", "two", "three")
    assert (code, banks.active()) == (0, ("two", "three"))
    code, said = run(tmp_path, "", "bank", "rollback")
    assert (code, said, banks.active()) == (0, "active again: one\n", ("one",))
    code, said = run(tmp_path, "", "bank", "rollback")
    assert (code, said) == (1, "error: no bank was active before; there is nothing to go back to\n")


def test_gc_says_what_it_would_remove_and_removes_it_when_told_to(tmp_path: Path, banks: BankStore) -> None:
    code, said = run(tmp_path, "", "bank", "gc", "--keep", "0")
    assert code == 0
    assert said.splitlines()[0] == "stays  one: is active"
    assert said.splitlines()[-1] == "nothing was removed; say --remove to do it"
    assert len(banks.names()) == 3
    code, said = run(tmp_path, "", "bank", "gc", "--keep", "0", "--remove", "--json")
    assert [row["goes"] for row in json.loads(said)] == [False, True, True]
    assert banks.names() == ("one",)


def test_compare_shows_the_fields_that_differ(tmp_path: Path, banks: BankStore) -> None:
    code, said = run(tmp_path, "", "bank", "compare", "one", "two", "--json")
    told = json.loads(said)
    assert (code, told["scores"]) == (0, [])
    assert {"name", "threshold"} <= {row["field"] for row in told["differences"]}
    code, said = run(tmp_path, "", "bank", "compare", "one", "away")
    assert code == 1
    assert "bank away: manifest.json cannot be read" in said


def test_compare_scores_the_same_images_by_both_banks(tmp_path: Path) -> None:
    from dicom_node.score.backbone import load_backbone
    from tests.unit.score.builders import bank_facts

    plain = load_backbone("lite0-random")
    facts = bank_facts()["backbone"] | {
        "name": plain.name, "dim": plain.dim, "weights_sha256": plain.weights_sha256,
    }  # fmt: skip
    for seed, name in enumerate(("one", "two")):
        random_bank(tmp_path / "banks", name, seed, dim=plain.dim, backbone=facts)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_text("no picture")
    code, said = run(tmp_path, "", "bank", "compare", "one", "two", "--images", str(folder), "--json")
    first, second = json.loads(said)["scores"]
    assert code == 0
    assert first["image"] == "a.png"
    assert first["one"]["value"] != first["two"]["value"]
    assert "b.png" in second["error"]


@pytest.mark.parametrize("options", [(), ("--images", "x", "--marked-normal")])
def test_a_rebuild_needs_one_source_of_normals(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said = run(tmp_path, "", "bank", "rebuild", *options)
    assert code == 2
    words = " ".join(said.replace("│", " ").split())
    assert "say one of --images, --marked-normal and --from-pacs" in words


def test_a_rebuild_without_an_active_bank_says_so(tmp_path: Path) -> None:
    code, said = run(tmp_path, "", "bank", "rebuild", "--marked-normal")
    assert (code, said) == (1, "error: the bank to rebuild is not named; name an active one: there is none\n")


def test_a_study_is_marked_and_the_mark_taken_back(tmp_path: Path) -> None:
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    upgrade(engine)
    with writing(engine) as conn:
        instances.add(
            conn, received("1.2.3.1", "A", T0), study_instance_uid="1.2.3", series_instance_uid="1.2.3.4",
            digest="0" * 64, size=1, at=T0,
        )  # fmt: skip
    engine.dispose()
    assert run(tmp_path, "", "worklist", "mark", "1.2.3", "normal", "--by", "ada") == (
        0, "study 1.2.3: marked normal\n",
    )  # fmt: skip
    assert run(tmp_path, "", "worklist", "mark", "1.2.3", "clear") == (0, "study 1.2.3: no mark any more\n")
    code, said = run(tmp_path, "", "worklist", "show", "1.2.3", "--json")
    told = [event["detail"] for event in json.loads(said)["events"] if event["kind"] == "study.marked"]
    assert told[0] == {"mark": "normal", "by": "ada"}
    assert [entry["mark"] for entry in told] == ["normal", "clear"]
    assert run(tmp_path, "", "worklist", "mark", "1.2.9", "normal") == (
        1, "error: no image of study 1.2.9 was ever received; nothing to mark\n",
    )  # fmt: skip
    code, said = run(tmp_path, "", "worklist", "mark", "1.2.3", "fine")
    assert code == 2


def test_a_damaged_record_of_active_banks_is_told_and_an_activation_repairs_it(
    tmp_path: Path, banks: BankStore
) -> None:
    (banks.root / "active.json").write_bytes(b'{"active": [{"na')
    code, said = run(tmp_path, "", "bank", "list")
    assert code == 0
    assert "  one  " in said
    assert "active.json cannot be read" in said
    assert "`dicom-node bank activate NAME` writes it anew" in said
    code, said = run(tmp_path, "", "bank", "gc", "--remove")
    assert (code, len(banks.names())) == (1, 3)
    code, said = run(tmp_path, "", "bank", "activate", "two")
    assert (code, banks.active()) == (0, ("two",))


def test_gc_names_what_dead_builds_left(tmp_path: Path, banks: BankStore) -> None:
    left = banks.root / ".one.removed-4194305"
    left.mkdir()
    _, said = run(tmp_path, "", "bank", "gc")
    assert f"can go  {left.name}: was left by a process that is gone" in said
    assert run(tmp_path, "", "bank", "gc", "--remove")[0] == 0
    assert not left.exists()


def test_a_bank_that_is_active_though_the_database_went_away_is_said_to_be_active(
    tmp_path: Path, banks: BankStore
) -> None:
    away = open_engine(Db(url=f"sqlite:///{tmp_path / 'empty.db'}"))
    try:
        with pytest.raises(DatabaseError, match="two is what scores now, but no event of it could be recorded"):
            admin.activate_banks(banks.root, ["two"], away, lambda: datetime.now(UTC))
    finally:
        away.dispose()
    assert banks.active() == ("two",)
