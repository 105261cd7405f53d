from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import load_bank
from dicom_node.score.bank_facts import BankFolder
from dicom_node.score.bank_store import BankStore
from dicom_node.score.manifest import Manifest

MakeBank = Callable[..., Manifest]


def test_a_bank_is_told_as_the_node_would_load_it(make_bank: MakeBank, tmp_path: Path) -> None:
    manifest = make_bank("one")
    make_bank("two", seed=1)
    BankStore(tmp_path / "banks").activate("two")
    folder = BankFolder(tmp_path / "banks")
    facts = folder.bank("one")
    assert (facts.bank_hash, facts.fault) == (manifest.bank_hash, "")
    assert (folder.names(), folder.active()) == (("one", "two"), ("two",))
    scores = load_bank(tmp_path / "banks" / "one").calibration.scores
    assert facts.percentiles == tuple(
        (percent, float(np.quantile(scores, percent / 100, method="inverted_cdf")))
        for percent, _ in facts.percentiles
    )


@pytest.mark.parametrize("file", ["images.json", "index.faiss", "calibration.json"])
def test_one_changed_byte_of_a_bank_is_a_fault_that_names_the_file(
    make_bank: MakeBank, tmp_path: Path, file: str
) -> None:
    make_bank()
    folder = BankFolder(tmp_path / "banks")
    assert folder.bank("one").fault == ""
    path = tmp_path / "banks" / "one" / file
    path.write_bytes(path.read_bytes() + b" ")
    assert folder.bank("one").fault.startswith(f"{file} has SHA-256 ")


def test_a_changed_manifest_is_a_fault(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    path = tmp_path / "banks" / "one" / "manifest.json"
    path.write_text(path.read_text().replace('"k": ', '"k": 1'))
    assert "it was changed" in BankFolder(tmp_path / "banks").bank("one").fault


def test_a_bank_that_is_not_there_is_said_with_those_that_are(make_bank: MakeBank, tmp_path: Path) -> None:
    make_bank()
    with pytest.raises(BankError, match="there are: one"):
        BankFolder(tmp_path / "banks").bank("../one")


def test_looking_at_banks_and_studies_loads_no_torch() -> None:
    code = "import sys, dicom_node.pipeline.desk; print({'torch', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_manifest_with_an_infinite_count_is_a_fault_and_no_crash(make_bank: MakeBank, tmp_path: Path) -> None:
    manifest = make_bank()
    path = tmp_path / "banks" / "one" / "manifest.json"
    stated = f'"normal_images": {manifest.normal_images}'
    assert stated in path.read_text()
    path.write_text(path.read_text().replace(stated, '"normal_images": Infinity'))
    assert "manifest.json cannot be read" in BankFolder(tmp_path / "banks").bank("one").fault
