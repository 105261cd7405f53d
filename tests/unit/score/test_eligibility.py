from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.config import Eligibility
from dicom_node.score.eligibility import CODES, DX_FOR_PRESENTATION, DX_FOR_PROCESSING, judge
from tests.unit.score.builders import image

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def chest(**attributes: object) -> Dataset:
    return image(np.arange(200 * 200).reshape(200, 200), **attributes)


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BodyPartExamined": "chest", "ViewPosition": "pa"},
        {"Modality": "dx", "SOPClassUID": DX_FOR_PRESENTATION, "PresentationIntentType": "For Presentation"},
        {"SOPClassUID": SECONDARY_CAPTURE},
        {"ImageType": ["DERIVED", "PRIMARY"]},
        {"ViewCodeSequence": code("R-10206", "SRT", "antero-posterior")},
        {"AnatomicRegionSequence": code("816094009", "SCT", "Chest")},
        {"NumberOfFrames": 1},
    ],
)
def test_a_frontal_chest_is_scored(attributes: dict[str, object]) -> None:
    assert judge(chest(**attributes)) is None


REFUSED = [
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "sop_class", "1.2.840.10008.5.1.4.1.1.2"),
    ({"Modality": "MG"}, "modality", "'MG'; scored are: CR, DX, RG"),
    ({"Modality": None}, "modality", "not stated"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "presentation_intent", "'FOR PROCESSING'"),
    ({"SOPClassUID": DX_FOR_PROCESSING}, "presentation_intent", "'FOR PROCESSING'"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "image_type", "LOCALIZER"),
    ({"BodyPartExamined": "HAND"}, "body_part", "'HAND'"),
    ({"AnatomicRegionSequence": code("85562004", "SCT", "Hand")}, "body_part", "'HAND'"),
    ({"ViewPosition": "LL"}, "view", "'LL'; scored are: PA, AP"),
    ({"ViewCodeSequence": code("399173006", "SCT", "left lateral")}, "view", "'LL'"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "samples", "PALETTE COLOR"),
    ({"NumberOfFrames": 12}, "frames", "Number of Frames is 12"),
    ({"Rows": 100}, "size", "100 x 200"),
]


@pytest.mark.parametrize(("attributes", "expected", "seen"), REFUSED)
def test_every_refusal_has_its_code_and_says_what_was_seen(
    attributes: dict[str, object], expected: str, seen: str
) -> None:
    refusal = judge(chest(**attributes))
    assert refusal is not None
    assert refusal.code == expected
    assert seen in refusal.reason


def test_every_code_is_reached_by_some_image() -> None:
    assert {expected for _, expected, _ in REFUSED} == set(CODES)


def test_what_is_not_stated_is_refused_only_where_it_is_required() -> None:
    assert judge(chest()) is None
    part = judge(chest(), Eligibility(require_body_part=True))
    view = judge(chest(BodyPartExamined="CHEST"), Eligibility(require_view_position=True))
    assert part is not None
    assert (part.code, part.reason.split(";")[0]) == ("body_part", "Body Part Examined is not stated")
    assert view is not None
    assert (view.code, view.reason.split(";")[0]) == ("view", "View Position is not stated")


def test_an_empty_list_allows_everything() -> None:
    rules = Eligibility(modalities=(), body_parts=(), view_positions=(), presentation_intents=())
    odd = chest(
        Modality="MG", BodyPartExamined="HAND", ViewPosition="LL", PresentationIntentType="FOR PROCESSING"
    )
    assert judge(odd, rules) is None


def test_a_value_that_is_no_number_is_no_crash() -> None:
    ds = chest()
    ds.add_new("NumberOfFrames", "IS", "")
    assert judge(ds) is None
