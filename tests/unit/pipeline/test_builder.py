"""The child process that builds: its words, its failures, its end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dicom_node.domain.errors import BankError
from dicom_node.pipeline.builder import Builder


def test_what_the_child_prints_comes_back() -> None:
    assert "rebuild" in Builder()(["--help"])


def test_a_child_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"ended with 1: .*neither a folder nor a \.csv"):
        Builder()(["split", "--images", str(tmp_path / "away"), "--out", str(tmp_path / "out.csv")])


def test_a_child_is_ended_with_the_node_and_none_is_started_after_that(tmp_path: Path) -> None:
    builder = Builder()
    ended: list[BankError] = []

    def build() -> None:
        try:
            builder(["phantoms", "--out", str(tmp_path / "out"), "--count", "100000", "--rows", "128"])
        except BankError as error:
            ended.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    until = time.monotonic() + 120
    while not list(tmp_path.glob("out/*.dcm")) and time.monotonic() < until:
        time.sleep(0.01)
    builder.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert "ended with -15" in str(ended[0])
    with pytest.raises(BankError, match="the node is stopping"):
        builder(["--help"])
