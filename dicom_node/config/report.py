"""What a report says beyond its result."""

from __future__ import annotations

from typing import Literal

from dicom_node.config.values import Section


class ReportSection(Section):
    """What the report says of the device and the site."""

    manufacturer: str = "dicom_node"
    model_name: str = "dicom-node"
    serial_number: str = "0"
    institution_name: str = ""
    series_description: str = "Chest X-ray anomaly score (research)"
    language: Literal["en", "de", "fr", "sv", "ja"] = "en"
