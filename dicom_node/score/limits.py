"""What a scoring process forbids itself: memory beyond a limit, core dumps, outliving its parent. Linux.

Elsewhere only the core dumps: the parent's limit of time holds everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_RATHER_THIS = "500"


def no_core_dump() -> None:
    """Leave no image behind in a core file, wherever the system would put it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """End this process as soon as its parent ends, whatever it is doing; at once if the parent is gone.

    For Linux the parent is the thread that started this process.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def offer_to_be_killed() -> None:
    """Where the machine runs out of memory, let the system end this process rather than the node."""
    with contextlib.suppress(OSError):  # no Linux, or not allowed: the system chooses
        Path("/proc/self/oom_score_adj").write_text(_RATHER_THIS)


def limit_memory(megabytes: int | None) -> None:
    """Let this process allocate so much more than it has allocated now; None lifts the limit.

    An allocation beyond it fails (RLIMIT_DATA: private memory that can be written, touched or not).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if megabytes is not None and sys.platform == "linux":
        wanted = _allocated() + megabytes * 1024 * 1024
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _allocated() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
