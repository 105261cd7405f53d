from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import FILES, load_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest, Population

MakeBank = Callable[..., Manifest]


def test_a_bank_comes_back_as_it_was_written(make_bank: MakeBank, tmp_path: Path) -> None:
    manifest = make_bank()
    bank = load_bank(tmp_path / "banks" / "one")
    assert bank.manifest == manifest
    assert bank.bank_hash == manifest.bank_hash
    assert bank.index.ntotal == 12
    assert bank.images == tuple(f"image-{number}" for number in range(12))
    assert sorted(p.name for p in (tmp_path / "banks").iterdir()) == ["one"]


def test_the_same_parts_have_the_same_hash_and_other_parts_another(make_bank: MakeBank, tmp_path: Path) -> None:
    first = make_bank()
    (tmp_path / "banks" / "one").rename(tmp_path / "moved")
    assert make_bank().bank_hash == first.bank_hash
    (tmp_path / "banks" / "one").rename(tmp_path / "moved-too")
    assert make_bank(seed=1).bank_hash != first.bank_hash


@pytest.mark.parametrize("file", FILES)
def test_one_changed_bit_in_any_file_stops_the_load_and_names_the_file(
    file: str, make_bank: MakeBank, tmp_path: Path
) -> None:
    make_bank()
    path = tmp_path / "banks" / "one" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        BankError, match=rf"{file} has SHA-256 [0-9a-f]{{64}}; the manifest says [0-9a-f]{{64}}"
    ):
        load_bank(path.parent)


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_a_missing_file_stops_the_load(file: str, make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    (tmp_path / "banks" / "one" / file).unlink()
    with pytest.raises(BankError, match=f"{file} cannot be read"):
        load_bank(tmp_path / "banks" / "one")


def test_a_changed_manifest_does_not_load(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    path = tmp_path / "banks" / "one" / "manifest.json"
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(values | {"threshold": 9.0}))
    with pytest.raises(BankError, match="it was changed"):
        load_bank(path.parent)
    path.write_text("{}")
    with pytest.raises(BankError, match="not a manifest"):
        load_bank(path.parent)


def test_a_bank_under_another_name_does_not_load(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    (tmp_path / "banks" / "one").rename(tmp_path / "banks" / "two")
    with pytest.raises(BankError, match="the manifest is that of bank one"):
        load_bank(tmp_path / "banks" / "two")


def test_a_bank_is_never_overwritten(make_bank: MakeBank) -> None:
    make_bank()
    with pytest.raises(BankError, match="a bank is never changed"):
        make_bank(seed=1)


def test_vectors_that_are_not_of_unit_length_are_refused(make_bank: MakeBank, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="unit length"):
        make_bank(vectors=np.ones((12, 24), dtype=np.float32))
    assert not (tmp_path / "banks" / "one").exists()


@pytest.mark.parametrize("name", ["../one", "a/b", "", ".hidden", "x" * 65, "é", "a b"])
def test_a_name_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no name of a bank"):
        BankStore(tmp_path).path(name)


def test_activation_is_remembered_and_can_be_taken_back(make_bank: MakeBank, tmp_path: Path) -> None:
    hashes = {name: make_bank(name, seed=seed).bank_hash for seed, name in enumerate(("one", "two"))}
    store = BankStore(tmp_path / "banks")
    assert store.names() == ("one", "two")
    assert store.active() == ()
    store.activate("one", at=datetime(2026, 1, 1, tzinfo=UTC))
    store.activate("two", "one")
    again = BankStore(tmp_path / "banks")
    assert again.active() == ("two", "one")
    assert again.active_hashes() == {"two": hashes["two"], "one": hashes["one"]}
    assert again.history() == (("one",),)
    assert again.rollback() == ("one",)
    assert again.active() == ("one",)
    with pytest.raises(BankError, match="nothing to go back to"):
        again.rollback()


def test_activating_what_is_active_changes_nothing(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    store = BankStore(tmp_path / "banks")
    store.activate("one")
    before = (tmp_path / "banks" / "active.json").stat()
    store.activate("one")
    assert (tmp_path / "banks" / "active.json").stat() == before


def test_a_damaged_or_missing_bank_is_not_activated(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank("one")
    make_bank("two", seed=1)
    store = BankStore(tmp_path / "banks")
    store.activate("one")
    (tmp_path / "banks" / "two" / "images.json").write_text("{}")
    for names in (("two",), ("one", "two"), ("three",), ("one", "one"), ()):
        with pytest.raises(BankError):
            store.activate(*names)
    assert store.active() == ("one",)
    assert store.names() == ("one", "two")


def test_a_damaged_record_is_an_error_until_a_bank_is_activated_anew(
    make_bank: MakeBank, tmp_path: Path
) -> None:
    make_bank()
    store = BankStore(tmp_path / "banks")
    for content in ("{", "[]", '{"active": [{"name": "../x", "bank_hash": "0"}], "history": []}'):
        (tmp_path / "banks" / "active.json").write_text(content)
        with pytest.raises(BankError):
            store.active()
    store.activate("one")
    assert store.active() == ("one",)


def test_percentile_z_score_and_threshold_follow_from_the_calibration_scores() -> None:
    calibration = Calibration.of([0.4, 0.1, 0.3, 0.2])
    assert [calibration.percentile(value) for value in (0.05, 0.1, 0.25, 0.4, 9)] == [0, 0, 50, 75, 100]
    assert calibration.z_score(0.25) == pytest.approx(0)
    assert calibration.z_score(0.25 + np.std([0.1, 0.2, 0.3, 0.4], ddof=1)) == pytest.approx(1)
    hundred = Calibration.of(np.arange(100) / 100)
    for rate in (0.05, 0.1, 0.5, 0.01, 0.001, 0.07):
        threshold = hundred.threshold(rate)
        assert (hundred.scores > threshold).mean() <= rate
        lower = hundred.scores[hundred.scores < threshold][-1]
        assert (hundred.scores > lower).mean() > rate


def test_a_calibration_without_spread_is_refused() -> None:
    for scores in ([], [1.0], [1.0, 1.0], [1.0, float("nan")]):
        with pytest.raises(BankError, match="scores that differ"):
            Calibration.of(scores)


@pytest.mark.parametrize(
    ("population", "admitted", "refused"),
    [
        (Population(), [("DX", "PA", None), ("CR", "", 3.0)], []),
        (Population(modalities=("DX",)), [("DX", "AP", None)], [("CR", "AP", None)]),
        (Population(views=("PA",)), [("DX", "PA", None), ("DX", "", None)], [("DX", "AP", None)]),
        (
            Population(minimum_age=18, maximum_age=64),
            [("DX", "PA", 18.0), ("DX", "PA", 64.0)],
            [("DX", "PA", 17.9), ("DX", "PA", 65.0), ("DX", "PA", None)],
        ),
        (Population(maximum_age=5), [("DX", "PA", 0.2)], [("DX", "PA", 6.0)]),
    ],
)
def test_a_population_admits_whom_it_was_built_from(
    population: Population,
    admitted: list[tuple[str, str, float | None]],
    refused: list[tuple[str, str, float | None]],
) -> None:
    assert all(population.admits(*who) for who in admitted)
    assert not any(population.admits(*who) for who in refused)


def test_a_bank_takes_the_place_of_one_of_several_active_ones(make_bank: MakeBank, tmp_path: Path) -> None:
    hashes = {name: make_bank(name, seed=seed).bank_hash for seed, name in enumerate(("a", "b", "c", "d"))}
    store = BankStore(tmp_path / "banks")
    store.activate("a", "b", "c")
    store.replace("b", hashes["b"], "d")
    assert store.active() == ("a", "d", "c")
    for old, old_hash, new, told in (
        ("b", hashes["b"], "d", "not active any more"),
        ("a", hashes["b"], "b", "not active any more"),
        ("a", hashes["a"], "c", "active already"),
        ("a", hashes["a"], "away", "cannot be read"),
    ):
        with pytest.raises(BankError, match=told):
            store.replace(old, old_hash, new)
    assert store.active() == ("a", "d", "c")
    assert store.rollback() == ("a", "b", "c")


def test_an_active_bank_is_not_removed_and_another_is_gone_at_once(make_bank: MakeBank, tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        make_bank(name, seed=seed)
    store = BankStore(tmp_path / "banks")
    store.activate("one")
    with pytest.raises(BankError, match="one is active"):
        store.remove("one")
    store.remove("two")
    assert store.names() == ("one",)
    assert not [path for path in store.root.iterdir() if "removed" in path.name]
    with pytest.raises(BankError, match="two cannot be removed"):
        store.remove("two")


class Overtaken(BankStore):
    """A folder of banks in which somebody removes each bank right after it was verified."""

    def verify(self, name: str) -> str:
        bank_hash = super().verify(name)
        BankStore(self.root).remove(name)
        return bank_hash


def test_a_bank_that_is_removed_while_it_is_being_activated_does_not_become_active(
    make_bank: MakeBank, tmp_path: Path
) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        make_bank(name, seed=seed)
    store = BankStore(tmp_path / "banks")
    store.activate("one")
    with pytest.raises(BankError, match="bank two"):
        Overtaken(store.root).activate("two")
    with pytest.raises(BankError, match="bank three"):
        Overtaken(store.root).replace("one", store.active_hashes()["one"], "three")
    assert store.active() == ("one",)


def test_activations_of_several_processes_wait_for_each_other(make_bank: MakeBank, tmp_path: Path) -> None:
    names = [f"b{number}" for number in range(6)]
    for seed, name in enumerate(names):
        make_bank(name, seed=seed)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: BankStore(tmp_path / "banks").activate(name), names))
    store = BankStore(tmp_path / "banks")
    assert sorted([*store.active(), *(past[0] for past in store.history())]) == names


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    make_bank: MakeBank, tmp_path: Path
) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = tmp_path / "banks" / f".one.writing-{dead.pid}"
    living = tmp_path / "banks" / f".one.writing-{os.getppid()}"
    for folder in (left, living):
        folder.mkdir(parents=True)
        (folder / "index.faiss").write_bytes(b"half")
    make_bank()
    assert sorted(path.name for path in (tmp_path / "banks").iterdir()) == [living.name, "one"]
