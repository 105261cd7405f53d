"""A fixed slice of the fuzzing that `tests.fuzz.run` does by hand, and everything that was ever found."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_node.domain.errors import CannotDecodeError, PoisonError
from dicom_node.score.picture_process import PictureProcess
from tests.fuzz.association_path import TARGETS, fuzz_associations
from tests.fuzz.mutations import apply, from_json
from tests.fuzz.parse_path import ParsePath, parse_path
from tests.fuzz.run import HANGS, fuzz_parse, surviving
from tests.fuzz.seeds import seeds
from tests.phantoms import chest_dataset, part10

CORPUS = (Path(__file__).parent / "corpus.jsonl").read_text(encoding="ascii").splitlines()
SLICE, STREAMS, SEED = 400, 60, 20261125
DECODER_DIED = "FINDING died: -6"


@pytest.fixture(scope="module")
def answered() -> Iterator[ParsePath]:
    logging.disable(logging.CRITICAL)
    with parse_path() as path:
        yield path
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    signal.alarm(HANGS * 5)
    yield
    signal.alarm(0)


def test_every_seed_is_answered_the_whole_way(answered: ParsePath) -> None:
    outcomes = {
        name: answered(seed.content, seed.sop_class, seed.sop_instance, seed.syntax)
        for name, seed in seeds().items()
    }
    assert len(outcomes) > 100
    assert all(outcome.startswith(("refused: ", "report: ")) for outcome in outcomes.values())
    assert sum(outcome.startswith("report: below") for outcome in outcomes.values()) > 5


@pytest.mark.parametrize("line", CORPUS, ids=range(len(CORPUS)))
def test_what_fuzzing_found_is_answered_now(line: str, answered: ParsePath) -> None:
    name, edits = from_json(line)
    seed = seeds()[name]
    content = seed.packed(apply(seed.plain, edits))
    outcome = answered(content, seed.sop_class, seed.sop_instance, seed.syntax)
    assert outcome.startswith(("refused: ", "report: "))


def test_a_slice_of_mutations_is_answered(tmp_path: Path) -> None:
    def run(numbers: range) -> None:
        fuzz_parse(numbers, SEED, 50, tmp_path)

    outcomes = surviving(run, range(SLICE), SEED, tmp_path)
    # GDCM still aborts on some broken JPEG streams; the node decodes in a process of its own for that reason.
    found = [outcome for outcome in outcomes if "FINDING" in outcome and outcome != DECODER_DIED]
    assert not found
    assert outcomes[DECODER_DIED] < SLICE / 50
    assert sum(outcomes.values()) > SLICE / 2


@pytest.mark.parametrize("name", TARGETS)
def test_a_slice_of_broken_streams_leaves_a_node_that_serves(name: str, tmp_path: Path) -> None:
    def run(numbers: range) -> None:
        fuzz_associations(TARGETS[name], numbers, SEED, tmp_path)

    outcomes = surviving(run, range(STREAMS), SEED, tmp_path)
    assert not [outcome for outcome in outcomes if "FINDING" in outcome]
    assert outcomes["good peers served"] >= 2
    assert sum(outcomes.values()) - outcomes["good peers served"] == STREAMS


def test_what_fuzzing_found_costs_no_more_than_its_own_picture(tmp_path: Path) -> None:
    process = PictureProcess((sys.executable, "-m", "dicom_node.pipeline.picture"), seconds=10.0)
    try:
        for number, line in enumerate(CORPUS):
            name, edits = from_json(line)
            seed = seeds()[name]
            path = tmp_path / f"{number}.dcm"
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
                UID(seed.sop_class),
                UID(seed.sop_instance),
            )
            meta.TransferSyntaxUID = UID(seed.syntax)
            with path.open("wb") as file:
                file.write(b"\0" * 128 + b"DICM")
                write_file_meta_info(file, meta)
                file.write(seed.packed(apply(seed.plain, edits)))
            for kind in ("thumbnail", "image"):
                with suppress(CannotDecodeError, PoisonError):
                    assert process.draw(path, kind)
        (tmp_path / "whole.dcm").write_bytes(part10(chest_dataset()))
        assert process.draw(tmp_path / "whole.dcm", "thumbnail")
    finally:
        process.close()
