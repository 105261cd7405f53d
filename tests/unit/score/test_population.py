"""Which bank of a set serves which image: the table."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.score.eligibility import stated_view
from dicom_node.score.manifest import LATERAL, Manifest, Population
from dicom_node.score.population import stated_institution
from tests.unit.score.builders import bank_facts

BANKS = {
    "children": Population(views=("PA", "AP"), maximum_age=15),
    "ward, lying": Population(views=("AP",), minimum_age=16),
    "adults of A": Population(views=("PA",), minimum_age=16, institutions=("A",)),
    "adults, DX": Population(views=("PA",), minimum_age=16, modalities=("DX",)),
    "lateral": Population(views=(LATERAL,), minimum_age=16),
}


def served(modality: str, view: str, age: float | None, institution: str = "") -> str:
    admitted = (name for name, bank in BANKS.items() if bank.admits(modality, view, age, institution))
    return next(admitted, "not analysed")


@pytest.mark.parametrize(
    ("modality", "view", "age", "institution", "bank"),
    [
        ("DX", "PA", 3.0, "", "children"),
        ("CR", "", 15.9, "A", "children"),
        ("CR", "LL", 3.0, "A", "not analysed"),
        ("CR", "AP", 16.0, "", "ward, lying"),
        ("CR", "", 70.0, "A", "ward, lying"),
        ("CR", "PA", 70.0, "A", "adults of A"),
        ("CR", "PA", 70.0, "B", "not analysed"),
        ("CR", "PA", 70.0, "", "not analysed"),
        ("DX", "PA", 70.0, "B", "adults, DX"),
        ("", "PA", 70.0, "", "adults, DX"),
        ("DX", "LL", 70.0, "A", "lateral"),
        ("CR", "RL", 70.0, "", "lateral"),
        ("CR", "LATERAL", 70.0, "", "lateral"),
        ("CR", "LLD", 70.0, "A", "not analysed"),
        ("DX", "PA", None, "A", "not analysed"),
    ],
)
def test_the_first_bank_of_its_population_serves_an_image(
    modality: str, view: str, age: float | None, institution: str, bank: str
) -> None:
    assert served(modality, view, age, institution) == bank


def test_an_image_without_a_view_is_no_lateral() -> None:
    assert not Population(views=("LL",)).admits("DX", "", None)
    assert Population(views=("LL", "PA")).admits("DX", "", None)
    assert Population().admits("DX", "", None)


def test_a_bank_of_left_laterals_admits_an_unsided_one_and_no_right_one() -> None:
    assert Population(views=("LL",)).admits("DX", "LATERAL", None)
    assert not Population(views=("LL",)).admits("DX", "RL", None)


@pytest.mark.parametrize(
    ("stated", "outside"),
    [
        (("CR", "PA", 40.0, "A"), ""),
        (("", "", None, ""), ""),
        (("DX", "PA", 40.0, "A"), "modality"),
        (("CR", "AP", 40.0, "A"), "view"),
        (("CR", "PA", 15.0, "A"), "age"),
        (("CR", "PA", 40.0, "B"), "institution"),
    ],
)
def test_only_what_an_image_states_can_contradict_a_population(
    stated: tuple[str, str, float | None, str], outside: str
) -> None:
    people = Population(modalities=("CR",), views=("PA",), minimum_age=16, institutions=("A",))
    assert people.contradicts(*stated) == outside


@pytest.mark.parametrize(
    ("scheme", "code", "view"),
    [
        ("SCT", "399173006", "LL"),
        ("SRT", "R-10236", "LL"),
        ("SCT", "399198007", "RL"),
        ("SNM3", "R-10232", "RL"),
        ("SCT", "399067008", "LATERAL"),
    ],
)
def test_a_lateral_view_code_is_read_as_a_lateral(scheme: str, code: str, view: str) -> None:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning = scheme, code, "in words"
    ds = Dataset()
    ds.ViewCodeSequence = [item]
    assert stated_view(ds) == view


def test_the_institution_is_read_in_upper_case() -> None:
    ds = Dataset()
    assert stated_institution(ds) == ""
    ds.InstitutionName = " St. Anna "
    assert stated_institution(ds) == "ST. ANNA"


def manifest(**changes: object) -> Manifest:
    parts: dict[str, object] = {
        "name": "b", "files": {}, "head": "identity", "dim": 24, "vectors": 5, "normal_images": 5,
        "calibration_images": 2, "threshold": 0.5,
    }  # fmt: skip
    return Manifest.model_validate(bank_facts(**parts) | changes)


def test_a_bank_without_institutions_keeps_the_hash_it_had_before_there_were_any() -> None:
    plain = manifest(population=Population(site="here"))
    assert b"institutions" not in plain.to_json()
    asked = manifest(population=Population(site="here", institutions=("A",)))
    assert b"institutions" in asked.to_json()
    assert asked.bank_hash != plain.bank_hash
