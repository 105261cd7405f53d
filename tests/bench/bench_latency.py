"""From the last image's Success to the report in the PACS: a 2500 x 2048 CR, the default views, real Orthanc.

``make bench`` prints it. The figure is the quiet time plus what the node adds.
"""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path

from dicom_node.domain.types import Destination
from tests.live import LiveNode, build_bank, running
from tests.peers import orthanc
from tests.phantoms import chest_dataset, part10

QUIET, STUDIES = 5.0, 8


def test_latency(tmp_path: Path) -> None:
    """Print the seconds from Success to the report's arrival, less the quiet time."""
    build_bank(tmp_path / "banks", tmp_path, normals=60, views=None)
    with orthanc(tmp_path / "pacs") as pacs:
        settings = {"gather": {"quiet_seconds": QUIET, "poll_seconds": 0.5}, "queue": {"poll_seconds": 0.25}}
        node = LiveNode(
            tmp_path, tmp_path / "banks", Destination("pacs", "ORTHANC", pacs.host, pacs.port), **settings
        )
        assert node.command("bank", "activate", "test").returncode == 0
        with running(node):
            added = []
            for number in range(STUDIES):
                uid = f"2.25.{uuid.uuid4().int}"
                dataset = chest_dataset(
                    seed=number, shape=(2500, 2048), form="cr", bits=14, photometric="MONOCHROME1",
                    StudyInstanceUID=uid, SeriesInstanceUID=uid, SOPInstanceUID=uid,
                )  # fmt: skip
                path = tmp_path / "cr.dcm"
                path.write_bytes(part10(dataset))
                assert node.send(path) == [0]
                began = time.monotonic()
                while not pacs.find("Instance", StudyInstanceUID=uid, Modality="SR"):
                    time.sleep(0.02)
                added.append(time.monotonic() - began - QUIET)
    first, *rest = added
    print(
        f"\nlatency beyond the quiet time of {QUIET:.0f} s, {STUDIES} CRs of 2500 x 2048: "
        f"first {first:.2f} s, then median {statistics.median(rest):.2f} s, maximum {max(rest):.2f} s"
    )
