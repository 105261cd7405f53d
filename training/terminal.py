"""What every command of ``python -m training`` shares with the terminal: progress, and errors as exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicom_node.domain.errors import NodeError

FAILED, UNUSABLE = 1, 2


class Reporter:
    """Progress on standard error: a bar on a terminal, else a line now and then.

    Parameters
    ----------
    doing, done
        What happens to the files, as "embedding" and "embedded".
    """

    def __init__(self, doing: str = "embedding", done: str = "embedded") -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(doing, total=None)
        self._word = done
        self._total = self._done = self._told = 0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, total: int) -> None:
        """Say how many files there are."""
        self._total = total
        self._bar.update(self._task, total=total)

    def progress(self, files: int) -> None:
        """Say that so many more are done."""
        self._done += files
        self._bar.advance(self._task, files)
        if not self._console.is_terminal and (self._done - self._told >= 256 or self._done == self._total):
            self._told = self._done
            sys.stderr.write(f"{self._word} {self._done} of {self._total} files\n")
            sys.stderr.flush()


@contextmanager
def exit_codes(code: int) -> Iterator[None]:
    """Turn an error that has a sentence for people into that sentence and an exit code."""
    try:
        yield
    except (NodeError, ValidationError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(code) from error
