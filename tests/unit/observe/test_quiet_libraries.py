"""Libraries whose messages may quote a data set stay silent, in whatever order things are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from dicom_node.observe import logs
logs.set_up("INFO", "json")
import {module}
for name in ("pynetdicom", "pynetdicom.dsutils", "pynetdicom.acse", "pydicom"):
    logging.getLogger(name).error("MARIA^SECRET")
logging.getLogger("dicom_node").info("said")
"""


@pytest.mark.parametrize("module", ["dicom_node.receive.scp", "dicom_node.deliver.scu"])
def test_pynetdicom_says_nothing_after_the_program_has_set_up_its_log(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, check=True
    )
    assert "SECRET" not in done.stderr + done.stdout
    assert '"message": "said"' in done.stderr
