"""Whatever an image does to its scoring process, the worker gets an answer or an error, and goes on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.config import ScoreSection, Work
from dicom_node.domain.errors import BankError, PoisonError, ScorerAwayError, StoreError
from dicom_node.domain.types import ImageResult, Refusal
from dicom_node.observe.context import bound
from dicom_node.score.apart import Apart
from tests.scoring_child import _MARKED, EXPLANATION

CHILD = Path(__file__).parents[2] / "scoring_child.py"


class Time:
    """A clock that stands still until it is moved, for what waits between two starts."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@contextmanager
def apart(*how: str, monotonic: Callable[[], float] = time.monotonic, **limits: float) -> Iterator[Apart]:
    work = Work.model_validate({"image_seconds": 60.0, "image_memory_megabytes": 128, **limits})
    made = Apart([sys.executable, str(CHILD), *how], ScoreSection(), work, monotonic=monotonic)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def scorer() -> Iterator[Apart]:
    with apart() as made:
        yield made


def ask(scorer: Apart, what: str) -> str:
    result = scorer.analyse(Path(what)).result
    assert result.refusal is not None
    return result.refusal.reason.partition(" by ")[0]


def alive(process_id: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return b"\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_bytes()
    except FileNotFoundError:
        return False


def gone(process_id: int) -> bool:
    deadline = time.monotonic() + 30
    while alive(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(process_id)


def test_the_answer_comes_back_whole(scorer: Apart) -> None:
    result = scorer.analyse(Path("good")).result
    assert result == ImageResult("1.2", "1.3", "1.4", refusal=Refusal("view", f"good by {scorer.process_id}"))


def test_the_bank_that_is_named_reaches_the_process_and_one_that_does_not_load_does_not_end_it(
    scorer: Apart,
) -> None:
    told = [scorer.analyse(Path("good"), bank).result.refusal for bank in ("two", "damaged", "")]
    own = f" by {scorer.process_id}"
    assert [refusal and refusal.reason for refusal in told] == [
        f"good with two{own}",
        f"good with damaged{own}",
        f"good{own}",
    ]


def test_one_process_serves_image_after_image(scorer: Apart) -> None:
    assert scorer.analyse(Path("a")).result.refusal is not None
    first = scorer.process_id
    ask(scorer, "b")
    assert scorer.process_id == first != os.getpid()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("segfault", "ended its process (signal 11, SIGSEGV)"),
        ("memory", "needed more than 128 MB of memory"),
        ("native-memory", "needed more than 128 MB of memory"),
        ("unexpected", "ended its process (exit code 1)"),
    ],
)
def test_an_image_that_costs_its_process_is_named_and_the_next_is_scored(
    scorer: Apart, what: str, reason: str
) -> None:
    ask(scorer, "good")
    before = scorer.process_id
    with pytest.raises(PoisonError, match="decoding this image") as told:
        scorer.analyse(Path(what))
    assert reason in str(told.value)
    assert before is not None
    assert gone(before)
    assert ask(scorer, "good") == "good"


def test_an_image_that_hangs_is_given_up_in_time() -> None:
    with apart(image_seconds=0.5) as scorer:
        scorer.warm_up()
        with pytest.raises(PoisonError, match=r"took longer than 0\.5 s"):
            scorer.analyse(Path("hang"))


def test_an_explanation_comes_back_whole_behind_its_score(scorer: Apart) -> None:
    examined = scorer.analyse(Path("explained"))
    assert examined.explanation == EXPLANATION
    assert scorer.analyse(Path("good")).explanation is None


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("explained-not", "the values have no range"),
        ("explained-memory", "it needed too much memory"),
        ("explained-hang", "took longer than 0.5 s"),
        ("explained-crash", "ended its process (signal 11, SIGSEGV)"),
        ("explained-wrong", "made its process answer nonsense"),
    ],
)
def test_an_explanation_that_fails_never_costs_the_score(
    what: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with apart(image_seconds=0.5) as scorer:
        scorer.warm_up()
        examined = scorer.analyse(Path(what))
        assert examined.explanation is None
        assert examined.result.refusal is not None
        assert ask(scorer, "good") == "good"
    assert reason in [vars(record).get("reason") for record in caplog.records]


@pytest.mark.parametrize("how", ["garbage", "giant"])
def test_an_answer_that_is_none_is_the_images_fault_and_never_believed(how: str) -> None:
    with apart(how) as scorer, pytest.raises(PoisonError, match="nonsense"):
        scorer.analyse(Path("good"))


def test_a_damaged_bank_and_a_missing_file_are_told_as_what_they_are(scorer: Apart) -> None:
    with pytest.raises(BankError, match="bank x is damaged"):
        scorer.analyse(Path("bank"))
    before = scorer.process_id
    with pytest.raises(StoreError, match="No such file"):
        scorer.analyse(Path("missing"))
    assert scorer.process_id == before


def test_what_a_decoder_prints_is_neither_taken_for_an_answer_nor_logged(
    scorer: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert ask(scorer, "noise") == "noise"
        with pytest.raises(PoisonError):
            scorer.analyse(Path("unexpected"))
    assert _MARKED not in str([vars(record) for record in caplog.records])
    assert "ZeroDivisionError" in [vars(record).get("error") for record in caplog.records]


def test_the_process_logs_into_this_log_with_what_is_bound_here(
    scorer: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), bound(work_item=7):
        ask(scorer, "good")
        scorer.close()
    [line] = [record for record in caplog.records if record.name == "decoder"]
    assert (line.message, vars(line)["what"], vars(line)["work_item"]) == ("looked at", "good", 7)


def test_a_crash_tells_where_in_the_program(scorer: Apart, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PoisonError):
        scorer.analyse(Path("segfault"))
    [line] = [record for record in caplog.records if record.message == "an image cost its scoring process"]
    assert "in _analyse" in vars(line)["where"]


def test_a_process_that_dies_between_two_images_is_replaced_and_nobody_is_blamed(scorer: Apart) -> None:
    ask(scorer, "good")
    assert scorer.process_id is not None
    os.kill(scorer.process_id, signal.SIGKILL)
    assert ask(scorer, "good") == "good"


def test_a_process_that_cannot_start_says_why_and_is_not_started_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = Time()
    with apart("crash-at-start", monotonic=now) as scorer:
        for _ in range(3):
            with pytest.raises(ScorerAwayError, match="exit code 9"):
                scorer.analyse(Path("good"))
        assert scorer.process_id is None
        now.at += 3
        with pytest.raises(ScorerAwayError, match="exit code 9"):
            scorer.analyse(Path("good"))
    starts = [vars(r)["next_in_seconds"] for r in caplog.records if r.message.endswith("did not start")]
    assert starts == [2.0, 4.0]
    assert "libmissing.so: cannot open shared object file" in [vars(r).get("line") for r in caplog.records]
    assert ScorerAwayError.retryable


def test_a_program_that_does_not_exist_is_no_image_s_fault() -> None:
    scorer = Apart(["/nonexistent/python"], ScoreSection(), Work())
    with pytest.raises(ScorerAwayError, match="No such file"):
        scorer.analyse(Path("good"))


def test_without_a_bank_it_starts_and_says_so() -> None:
    with apart("no-bank") as scorer:
        assert scorer.warm_up() == "bank x is damaged"
        assert ask(scorer, "good") == "good"


def test_it_ends_when_it_is_closed_and_not_by_the_signals_that_stop_the_node(scorer: Apart) -> None:
    ask(scorer, "good")
    process = scorer.process_id
    assert process is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process, number)
    ask(scorer, "good")
    assert scorer.process_id == process
    scorer.close()
    assert not alive(process)
    assert scorer.process_id is None


def test_it_leaves_no_core_dump_and_is_the_first_to_go_when_memory_is_short(scorer: Apart) -> None:
    ask(scorer, "good")
    proc = Path(f"/proc/{scorer.process_id}")
    [core] = [line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max core")]
    assert core.split()[4:6] == ["0", "0"]
    assert int((proc / "oom_score_adj").read_text()) >= 500


@pytest.mark.parametrize("what", ["idle", "hang"])
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, what: str) -> None:
    told = tmp_path / "child"
    script = (
        "import sys, pathlib\n"
        "from dicom_node.config import ScoreSection, Work\n"
        "from dicom_node.score.apart import Apart\n"
        f"scorer = Apart([sys.executable, {str(CHILD)!r}], ScoreSection(), Work())\n"
        "scorer.warm_up()\n"
        f"part = pathlib.Path({str(told)!r} + '.part')\n"
        "part.write_text(str(scorer.process_id))\n"
        f"part.rename({str(told)!r})\n"
        f"scorer.analyse(pathlib.Path({what!r})) if {what!r} == 'hang' else sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not told.exists():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int(told.read_text())
    assert alive(child)
    parent.kill()
    parent.wait()
    assert gone(child)
