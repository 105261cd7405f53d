from __future__ import annotations

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from tests.unit.score.builders import unit
from training.calibrate import score_against, score_leave_one_out, split_patients, unique_rows
from training.dataset import Item

RNG = np.random.default_rng(0)


def items(patients: list[str]) -> list[Item]:
    return [Item(f"f{at}", f"p{at}", patient) for at, patient in enumerate(patients)]


def test_the_split_parts_patients_and_loses_nobody() -> None:
    people = items([f"patient-{at % 17}" for at in range(100)])
    for seed in range(20):
        bank, held = split_patients(people, 0.2, seed)
        assert sorted(bank + held) == list(range(100))
        assert not {people[row].patient for row in bank} & {people[row].patient for row in held}
        assert 20 <= len(held) <= 25


def test_a_number_from_one_on_counts_images_and_the_seed_decides() -> None:
    people = items([str(at) for at in range(50)])
    assert len(split_patients(people, 7, 0)[1]) == 7
    assert split_patients(people, 7, 0) == split_patients(people, 7, 0)
    assert split_patients(people, 7, 0) != split_patients(people, 7, 1)


def test_one_patient_alone_cannot_be_split() -> None:
    with pytest.raises(BankError, match="40 images of 1 patients"):
        split_patients(items(["same"] * 40), 0.2, 0)


def test_the_first_of_identical_images_stays() -> None:
    assert unique_rows([Item(pixel_id=pixel) for pixel in "abacb"]) == [0, 1, 3]


def test_leave_one_out_with_one_view_is_the_next_neighbour_in_the_whole_bank() -> None:
    bank = unit(RNG.normal(size=(30, 1, 16)))
    patients = [str(at) for at in range(30)]
    for k in (1, 5):
        whole = score_against(bank, bank, k + 1)
        assert np.allclose(score_leave_one_out(bank, patients, k), whole, rtol=1e-9)


def test_leave_one_out_needs_other_patients() -> None:
    bank = unit(RNG.normal(size=(4, 2, 16)))
    with pytest.raises(BankError, match="one patient has 6 of all"):
        score_leave_one_out(bank, ["a", "a", "a", "b"], 3)
