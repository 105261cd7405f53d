"""Asks the C library to keep memory that was freed, for a process whose work is a network over many batches.

A layer's output is tens of megabytes. glibc gets each from the system and gives it back at once, so that every layer
of every batch has its pages made and cleared anew: half the time of embedding on a virtual machine. The price is that
up to 2 GiB stay with the process. What is larger than a layer's output is given back as before.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the settings in glibc's malloc.h."""

_GIB = 2**30


def keep_freed_memory() -> bool:
    """Set it for this process, for as long as it lives; return whether its C library knows the settings."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl, macOS
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _GIB) and mallopt(_TRIM_THRESHOLD, 2 * _GIB - 1))
