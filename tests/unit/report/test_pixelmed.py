"""PixelMed's validator on every report of the matrix, in one process of its own: it needs a second or two for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.domain.types import Verdict
from dicom_node.report import profile
from tests.peers_validators import pixelmed
from tests.unit.report import test_sr_beside, test_sr_full
from tests.unit.report.builders import NAMES, header
from tests.unit.report.test_profile import CHARACTER_SETS, RICHEST
from tests.unit.report.test_validators import of_source

KNOWN = Path(__file__).with_name("pixelmed_known.txt")


def known() -> list[str]:
    """Return the expressions of the known complaints."""
    lines = KNOWN.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def matrix() -> dict[str, bytes]:
    """Return each verdict in each class that it looks for a template in, in each character set; and what has more."""
    made = {
        "outlined-german.dcm": test_sr_full.in_language(
            "de", test_sr_full.outlined(), SpecificCharacterSet=b"ISO_IR 100", PatientSex=b"male"
        ),
        "two-methods.dcm": test_sr_beside.report().content,
    }
    for verdict in Verdict:
        for what in CHARACTER_SETS:
            charset, name = NAMES[what]
            content = of_source(verdict, header({"SpecificCharacterSet": charset, "PatientName": name}))
            for number, sop_class in enumerate(profile.CLASSES[:-1]):
                label = f"{verdict.name}-{number}-{what}.dcm".replace(" ", "-")
                made[label] = content if sop_class == RICHEST else profile.cut(content, sop_class).content
    return made


@pytest.mark.peer("java")
@pytest.mark.slow
def test_pixelmed_finds_the_template_and_nothing_but_the_known_complaints_in_any_report(tmp_path: Path) -> None:
    judged = pixelmed(matrix(), tmp_path)
    assert len(judged) == 2 + 4 * 6 * 3
    assert {name for name, one in judged.items() if one.root_template != "TID_1500"} == set()
    unknown = {
        f"{name}: {complaint}"
        for name, one in judged.items()
        for complaint in one.complaints
        if not any(re.fullmatch(expression, complaint) for expression in known())
    }
    assert unknown == set()
