"""Validators of others, run on our reports: dicom3tools' dciodvfy, DCMTK's dsrdump, PixelMed's SR validator.

They disagree with each other, which is why there are three. A validator that is absent skips the test with the
reason, or fails it where DICOM_NODE_REQUIRE_PEERS=1.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers import require

JARS = Path("/usr/share/java")
DCMTK_LACKS = (
    b"W: ObservationDateTime (0040,a032) violates VR definition in SR document",
    b"W: The VR checker does not support this Specific Character Set:",
    b"W: Reading unknown/unsupported SpecificCharacterSet",
)
XPATH_LIMITS = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")


def dciodvfy(content: bytes, folder: Path, iod: str = "Comprehensive3DSR") -> list[str]:
    """Return the lines that dciodvfy calls errors; it must also know the IOD."""
    path = folder / "report.dcm"
    path.write_bytes(content)
    done = subprocess.run([require("dciodvfy"), str(path)], capture_output=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    assert iod in lines, lines
    return [line for line in lines if not line.startswith("Warning") and line not in ("", iod)]


def dsrdump(content: bytes, folder: Path) -> str:
    """Return the report as DCMTK shows it in full; DCMTK must read it without an error and without a warning.

    Except for what DCMTK 3.6.7 itself lacks: it takes the offset +0000 of a DT for illegal, which it is not (PS3.5
    section 6.2), and says which character sets it does not know.
    """
    path = folder / "report.dcm"
    path.write_bytes(content)
    command = [require("dsrdump"), "+Pl", "+Pc", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith(DCMTK_LACKS)]
    assert not said, said
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True)
class Judgement:
    """What PixelMed said: whether it found the template, and its complaints without the places of the items."""

    root_template: str
    complaints: frozenset[str]


LOOP = """
public class Loop {
    public static void main(String[] files) throws Exception {
        var validator = new com.pixelmed.validate.DicomSRValidator();
        for (String file : files) {
            System.out.println("File " + file);
            System.out.println(validator.validate(file));
        }
    }
}
"""
"""Its own command takes one file, and reads six megabytes of rules anew for each."""


def pixelmed(reports: Mapping[str, bytes], folder: Path) -> dict[str, Judgement]:
    """Return the judgement of PixelMed's DicomSRValidator on each report, by the same names (of files)."""
    java = require("java")
    require("javac")  # `java` compiles the loop with it
    if not (JARS / "pixelmed.jar").exists():
        reason = f"there is no {JARS / 'pixelmed.jar'} (Debian: pixelmed-apps)"
        if os.environ.get("DICOM_NODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    (folder / "Loop.java").write_text(LOOP)
    for name, content in reports.items():
        (folder / name).write_bytes(content)
    limits = [f"-Djdk.xml.{limit}=0" for limit in XPATH_LIMITS]
    jars = os.pathsep.join(str(jar) for jar in sorted(JARS.glob("*.jar")))
    command = [java, *limits, "-cp", jars, "Loop.java", *reports]
    done = subprocess.run(command, capture_output=True, timeout=1200, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    judged: dict[str, Judgement] = {}
    for part in done.stdout.decode("utf-8", "replace").split("File ")[1:]:
        name, *lines = part.splitlines()
        assert "IOD validation complete" in lines, (name, lines)
        found = next((m[1] for line in lines if (m := re.match(r"Found Root Template (\S+)", line))), "")
        complaints = (_without_places(line) for line in lines if line.startswith(("Error", "Warning")))
        judged[name] = Judgement(found, frozenset(complaints))
    assert set(judged) == set(reports)
    return judged


def _without_places(line: str) -> str:
    return re.sub(r" \d+(\.\d+)*: /CONTAINER", " /CONTAINER", line)
