"""Who only looks does not wait for torch: two seconds that no command of an administrator needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("words", ["worklist list", "bank list", "check", "user list", "worklist due"])
def test_a_command_that_only_looks_imports_no_torch(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "dicom_node", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    imported = set(re.findall(r"\| *(\S+)$", done.stderr, re.MULTILINE))
    assert "dicom_node.cli.main" in imported
    assert "sqlalchemy" in imported
    assert not imported & {"torch", "torchvision", "scipy.ndimage", "matplotlib"}
