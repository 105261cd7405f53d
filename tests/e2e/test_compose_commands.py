"""compose.yaml is no fiction: its commands and settings run, and every study's report arrives exactly once.

A receiver and two workers on a real PostgreSQL (password, TCP), Orthanc with the file's own configuration.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.deliver.scu import send_files
from dicom_node.domain.types import Destination
from dicom_node.report.text import facts
from tests.compose_site import Site, site
from tests.deployment import DEPLOY, compose
from tests.peers import require
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.slow
NORMALS, FIRST_SEED = 20, 1000
QUICK = ("--views", "squash", "--calibration", "leave-one-out")
STUDIES = 6
BANK = "compose"


def write(folder: Path, *, seed: int, **overrides: Any) -> tuple[Path, str]:
    dataset = chest_dataset(seed=seed, **overrides)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    path.write_bytes(part10(dataset))
    return path, str(dataset.StudyInstanceUID)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with site() as it:
        normals = it.folder / "normals"
        normals.mkdir()
        for seed in range(FIRST_SEED, FIRST_SEED + NORMALS):
            write(normals, seed=seed)
        for command in (["build", "--images", str(normals), "--name", BANK, *QUICK], ["activate", BANK]):
            done = it.run("node", "bank", *command)
            assert done.returncode == 0, done.stdout + done.stderr
        it.start("node")
        for number in range(compose()["services"]["worker"]["deploy"]["replicas"]):
            it.start("worker", f"worker-{number + 1}")
        it.until("the node is healthy", lambda: it.healthy("node"), 60)
        yield it


@pytest.fixture(scope="module")
def sent(running: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Send the studies over four associations at a time and return one file of each."""
    folder = tmp_path_factory.mktemp("sent")
    studies = {}
    for seed in range(STUDIES):
        path, study = write(folder, seed=seed)
        studies[study] = path
    node = Destination("node", "DICOMNODE", "127.0.0.1", running.ports["node"])
    for path in studies.values():
        assert send_files(node, [path], calling_ae_title="CR1") == [0]
    running.until("every study is delivered", lambda: len(running.reports()) >= STUDIES, 180)
    return studies


def idle(it: Site) -> bool:
    """Say whether nothing is left to do for any study."""
    return all(row["waiting"] == [] and not row["is_open"] for row in it.json("node", "worklist", "list"))


def test_every_studys_report_arrives_exactly_once(running: Site, sent: dict[str, Path]) -> None:
    running.until("nothing is left to do", lambda: idle(running), 60)
    reports = [report for report in running.reports() if report.StudyInstanceUID in sent]
    assert Counter(report.StudyInstanceUID for report in reports) == Counter(dict.fromkeys(sent, 1))
    rows = {row["study_instance_uid"]: row for row in running.json("node", "worklist", "list")}
    assert {study: (rows[study]["revision"], rows[study]["deliveries"]) for study in sent} == dict.fromkeys(
        sent, (1, 1)
    )
    claims = [
        line for n in (1, 2) for line in running.log(f"worker-{n}").splitlines() if '"report delivered"' in line
    ]
    assert len(claims) == STUDIES
    assert max(Counter(running.arrived).values(), default=1) == 1


def test_every_report_holds_a_score_of_the_active_bank(running: Site, sent: dict[str, Path]) -> None:
    (bank,) = running.json("node", "bank", "list")
    assert bank["active"] is True
    assert {facts(report)["bank_hash"] for report in running.reports()} == {bank["hash"]}


def test_the_receiver_does_no_work_and_the_workers_do_not_listen(running: Site, sent: dict[str, Path]) -> None:
    assert "study answered" not in running.log("node")
    answered = sum(running.log(f"worker-{n}").count('"study answered"') for n in (1, 2))
    assert answered >= STUDIES
    assert all('"listening"' not in running.log(f"worker-{n}") for n in (1, 2))


def test_logs_are_json_and_name_no_patient(running: Site, sent: dict[str, Path]) -> None:
    lines = [line for n in ("node", "worker-1", "worker-2") for line in running.log(n).splitlines()]
    assert len(lines) > STUDIES
    assert all({"at", "level", "logger", "message"} <= set(json.loads(line)) for line in lines)
    patients = {str(chest_dataset(seed=seed).PatientName) for seed in range(STUDIES)} - {""}
    assert patients
    assert not any(patient in running.log(name) for patient in patients for name in running.processes)


def test_health_checks_pass_while_everything_runs(running: Site) -> None:
    assert {name: running.healthy(name) for name in ("node", "db", "pacs")} == dict.fromkeys(
        ("node", "db", "pacs"), True
    )


def test_an_image_that_the_pacs_gets_is_forwarded_and_its_report_comes_back(
    running: Site, sent: dict[str, Path], tmp_path: Path
) -> None:
    require("Orthanc")
    storescu = require("storescu")
    path, study = write(tmp_path, seed=77)
    port = str(running.ports["pacs"])
    subprocess.run([storescu, "-aec", "ORTHANC", "127.0.0.1", port, str(path)], check=True)
    running.until(
        "the forwarded study is answered",
        lambda: any(report.StudyInstanceUID == study for report in running.reports()),
        120,
    )
    shown = running.json("node", "worklist", "show", study)
    assert {instance["calling_ae_title"] for instance in shown["instances"]} == {"ORTHANC"}


def shape(value: Any) -> Any:
    """Return keys and kinds of a JSON value; numbers are one kind, and what may be null tells nothing."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def alike(documented: Any, seen: Any) -> bool:
    """Say whether an output has the documented shape; an empty list, {} and null fit what could stand there."""
    if isinstance(documented, dict) and isinstance(seen, dict):
        open_map = not documented or not seen
        return open_map or (
            documented.keys() == seen.keys() and all(alike(documented[k], seen[k]) for k in seen)
        )
    if isinstance(documented, list) and isinstance(seen, list):
        return not documented or not seen or alike(documented[0], seen[0])
    return documented == seen or "NoneType" in (documented, seen)


def documented(command: str) -> Any:
    """Return the example that the runbook gives of a command's JSON."""
    text = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    found = re.findall(rf"^`dicom-node {command}[^`]*--json`.*?^```json\n(.*?)^```$", text, re.M | re.S)
    assert len(found) == 1, f"RUNBOOK.md has {len(found)} examples of {command}"
    return json.loads(found[0])


def test_the_json_of_each_command_is_what_the_runbook_says(running: Site, sent: dict[str, Path]) -> None:
    study, path = next(iter(sent.items()))
    outputs = {
        "check": running.json("node", "check"),
        "bank list": running.json("node", "bank", "list"),
        "worklist list": running.json("node", "worklist", "list"),
        "worklist show": running.json("node", "worklist", "show", study),
        "score": running.json("worker", "score", str(path)),
        "selftest": running.json("node", "selftest"),
    }
    for command, output in outputs.items():
        assert alike(shape(documented(command)), shape(output)), (
            f"{command}: {json.dumps(output, indent=1)[:3000]}"
        )


def test_a_self_test_stays_in_the_node_unless_it_is_told_to_deliver(
    running: Site, sent: dict[str, Path]
) -> None:
    held = len(running.reports())
    assert running.json("node", "selftest")["delivered"] == []
    assert running.json("node", "selftest", "--deliver")["delivered"] == ["pacs"]
    running.until("the delivered one arrives", lambda: len(running.reports()) > held, 30)
    assert len(running.reports()) == held + 1


def test_every_row_of_the_table_stands_for_something_in_the_file(running: Site) -> None:
    assert running.unused == set()


def test_sigterm_ends_each_process_well_within_its_grace(running: Site, sent: dict[str, Path]) -> None:
    assert {name: running.stop(name) for name in ("worker-1", "worker-2", "node")} == {
        "worker-1": 0,
        "worker-2": 0,
        "node": 0,
    }
