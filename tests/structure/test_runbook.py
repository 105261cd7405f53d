"""What deploy/RUNBOOK.md says of settings, states, events and statuses, held against the program."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from dicom_node.config import Config, load
from dicom_node.domain.states import State
from dicom_node.domain.types import Verdict
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from dicom_node.pipeline.selftest import DELIVERED_AE_TITLE
from tests.deployment import DEPLOY, ROOT, UNITS, blocks, unit

RUNBOOK = DEPLOY / "RUNBOOK.md"
TEXT = RUNBOOK.read_text(encoding="utf-8")
CONFIG = load()


def said(pattern: str) -> str:
    """Return what the runbook says at the one place that matches."""
    flat = " ".join(TEXT.split())
    found = re.findall(pattern, flat)
    assert len(set(found)) == 1, f"{pattern}: {found}"
    return str(found[0])


@pytest.mark.parametrize("block", blocks(RUNBOOK, "toml"))
def test_every_example_of_a_configuration_is_valid(block: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block, encoding="utf-8")
    assert load(path) != CONFIG


def test_the_checks_of_the_node_itself_are_among_the_peers_of_the_example() -> None:
    (block,) = [b for b in blocks(RUNBOOK, "toml") if "peers" in b]
    titles = {peer["ae_title"] for peer in tomllib.loads(block)["receive"]["peers"]}
    assert titles >= {SELFTEST_AE_TITLE, DELIVERED_AE_TITLE}


def test_every_key_that_it_names_exists() -> None:
    named = re.findall(r"`\[(\w+)\] (\w+)`", TEXT)
    sections = Config.model_fields
    unknown = [(s, k) for s, k in named if k not in sections[s].annotation.model_fields]  # type: ignore[union-attr]
    assert named
    assert unknown == []


def test_numbers_are_the_defaults() -> None:
    queue = CONFIG.queue
    assert int(said(r"`\[store\] reserve_megabytes` \((\d+)\)")) == CONFIG.store.reserve_megabytes
    assert int(said(r"`\[queue\] lease_seconds`, (\d+)\)")) == queue.lease_seconds
    assert int(said(r"tries again after (\d+) s")) == queue.backoff_seconds
    assert int(said(r"each time up to (\d+) minutes")) * 60 == queue.backoff_cap_seconds
    assert int(said(r"minutes, (\d+) times in all")) == queue.deliver_attempts
    words = {"two": 2, "three": 3, "four": 4}
    assert words[said(r"tried (\w+) times \(`\[queue\] analyse_attempts`\)")] == queue.analyse_attempts
    restarts = {value for path in UNITS for _, directive, value in unit(path) if directive == "RestartSec"}
    assert {said(r"starts it again every (\w+) seconds")} == {"five"}
    assert restarts == {"5"}


def test_a_delivery_is_given_up_after_the_time_that_it_says() -> None:
    from dicom_node.queue.policy import backoff

    def days(jitter: float) -> float:
        queue = CONFIG.queue
        waits = (
            backoff(attempt, queue.backoff_seconds, queue.backoff_cap_seconds, jitter).total_seconds()
            for attempt in range(1, queue.deliver_attempts)
        )
        return sum(waits) / 86400

    assert said(r"\(`\[queue\]`\): (.+?)\.") == "one to two days"
    assert round(days(0.0)) == 1
    assert round(days(0.999)) == 2


def test_the_fewest_normals_are_what_the_builder_asks_for() -> None:
    from training.stated import FEW_NORMALS, MINIMUM_NORMALS

    assert int(said(r"At least (\d+) usable ones are needed")) == MINIMUM_NORMALS
    assert int(said(r"below (\d+) percentiles and threshold are rough")) == FEW_NORMALS


def test_states_verdicts_and_events_are_those_of_the_program() -> None:
    waiting = said(r"holds the work that is not done: (.+?)\.")
    assert set(re.findall(r"[A-Z_]{5,}", waiting)) == set(State) - {State.COMPLETED, State.CANCELED}
    verdicts = said(r"before the first report, else (.+?)\.")
    assert set(re.findall(r"`([^`]+)`", verdicts)) == set(Verdict)
    listed = set(re.findall(r"`([a-z]+\.[a-z]+)`", said(r"Kinds: (.+?)`\.") + "`"))
    sources = "\n".join(
        path.read_text("utf-8") for path in (ROOT / "dicom_node").rglob("*.py") if "config" not in path.parts
    )
    written = set(
        re.findall(
            r'"((?:instance|revision|workitem|report|object|delivery|commitment|bank|retrieval)\.[a-z]+)"',
            sources,
        )
    )
    written |= {f"workitem.{state.value.lower()}" for state in (State.COMPLETED, State.FAILED, State.CANCELED)}
    assert listed == written


def test_the_same_torch_is_installed_by_hand_and_by_make() -> None:
    pins = {
        tuple(re.findall(r'"(torch==[^"]+)"', text)) for text in (TEXT, (ROOT / "Makefile").read_text("utf-8"))
    }
    assert len(pins) == 1


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"\b(?:deploy|tests)/[\w/.-]+\.\w+", TEXT))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_json_example_is_json() -> None:
    assert len(blocks(RUNBOOK, "json")) == 6
    assert all(json.loads(block) for block in blocks(RUNBOOK, "json"))


def test_it_says_what_this_is_not() -> None:
    assert "not a medical device" in TEXT
