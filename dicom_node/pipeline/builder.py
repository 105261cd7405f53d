"""Starts the builder of banks as a process of its own, and ends it. Knows nothing of what it builds."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

from dicom_node.domain.errors import BankError


class Builder:
    """Runs ``python -m training`` as a child process, one at a time, and can end it.

    Parameters
    ----------
    show
        Let the child's progress through to standard error; else it is kept for the reason of a failure.
    """

    def __init__(self, *, show: bool = False) -> None:
        self._show = show
        self._guard = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False

    def __call__(self, arguments: Sequence[str]) -> str:
        """Return what the child printed.

        Raises
        ------
        BankError
            If it failed, with its last line, or was stopped.
        """
        command = [sys.executable, "-m", "training", *arguments]
        with self._guard:
            if self._stopped:
                raise BankError("the node is stopping; no bank was built")
            # Our own program; its arguments come from the administrator or the configuration.
            self._child = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=None if self._show else subprocess.PIPE, text=True
            )
        told, complained = self._child.communicate()
        if self._child.returncode != 0:
            last = (complained or "").strip().splitlines()[-1:] or ["its last words are above"]
            raise BankError(
                f"the builder ended with {self._child.returncode}: {last[0].removeprefix('error: ')[:500]}"
            )
        return told

    def stop(self) -> None:
        """End the child, if one runs, and start none any more. What it finished is used the next time."""
        with self._guard:
            self._stopped = True
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
