from __future__ import annotations

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.score import attributes


def test_a_sequence_in_the_place_of_a_value_counts_as_none_whatever_its_items_hold() -> None:
    item = Dataset()
    broken = RawDataElement(Tag(0x00080100), "NO", 0, b"", 0, is_implicit_VR=False, is_little_endian=True)
    item[broken.tag] = broken
    ds = Dataset()
    for keyword in ("Rows", "Modality", "WindowCenter"):
        ds[keyword] = DataElement(Tag(keyword), "SQ", [item])
        assert attributes.value_of(ds, keyword) is None
        assert attributes.texts(ds, keyword) == ()
        assert len(attributes.items(ds, keyword)) == 1
