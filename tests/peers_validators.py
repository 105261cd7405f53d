"""Validators of others, run on our reports: dicom3tools' dciodvfy, DCMTK's dsrdump, PixelMed's SR validator.

They disagree with each other, which is why there are three. A validator that is absent skips the test with the
reason, or fails it where DICOM_NODE_REQUIRE_PEERS=1.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers import require

JARS = Path("/usr/share/java")
XPATH_LIMITS = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")


def dciodvfy(content: bytes, folder: Path) -> list[str]:
    """Return the lines that dciodvfy calls errors; it must also know the IOD."""
    path = folder / "report.dcm"
    path.write_bytes(content)
    done = subprocess.run([require("dciodvfy"), str(path)], capture_output=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    assert "Comprehensive3DSR" in lines, lines
    return [line for line in lines if not line.startswith("Warning") and line not in ("", "Comprehensive3DSR")]


def dsrdump(content: bytes, folder: Path) -> str:
    """Return the report as DCMTK shows it in full; DCMTK must read it without an error and without a warning.

    Except one: DCMTK 3.6.7 takes the offset +0000 of a DT for illegal, which it is not (PS3.5 section 6.2).
    """
    path = folder / "report.dcm"
    path.write_bytes(content)
    command = [require("dsrdump"), "+Pl", "+Pc", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stderr.replace(
        b"W: ObservationDateTime (0040,a032) violates VR definition in SR document\n", b""
    )
    assert not said, said
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True)
class Judgement:
    """What PixelMed said: whether it found the template, and its complaints without the places of the items."""

    root_template: str
    complaints: frozenset[str]


def pixelmed(content: bytes, folder: Path) -> Judgement:
    """Return the judgement of PixelMed's DicomSRValidator."""
    java = require("java")
    if not (JARS / "pixelmed.jar").exists():
        reason = f"there is no {JARS / 'pixelmed.jar'} (Debian: pixelmed-apps)"
        if os.environ.get("DICOM_NODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    path = folder / "report.dcm"
    path.write_bytes(content)
    limits = [f"-Djdk.xml.{limit}=0" for limit in XPATH_LIMITS]
    jars = os.pathsep.join(str(jar) for jar in sorted(JARS.glob("*.jar")))
    command = [java, *limits, "-cp", jars, "com.pixelmed.validate.DicomSRValidator", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False, cwd=folder)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    assert "IOD validation complete" in lines, (lines, done.stderr)
    found = next((m[1] for line in lines if (m := re.match(r"Found Root Template (\S+)", line))), "")
    return Judgement(
        found, frozenset(_without_places(line) for line in lines if line.startswith(("Error", "Warning")))
    )


def _without_places(line: str) -> str:
    return re.sub(r" \d+(\.\d+)*: /CONTAINER", " /CONTAINER", line)
