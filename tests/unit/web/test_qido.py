"""What a DICOMweb query asks, without a database."""

from __future__ import annotations

from dicom_node.web import qido


def test_a_range_takes_no_value_that_is_not_there() -> None:
    assert qido.meets({"00080020": {"vr": "DA", "Value": ["20260101"]}}, {"00080020": "-20260102"})
    assert not qido.meets({"00080020": {"vr": "DA"}}, {"00080020": "-20260102"})
