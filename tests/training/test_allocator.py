from __future__ import annotations

import subprocess
import sys

import pytest

PAGES_MADE = """
import resource, sys
import numpy as np
from training.allocator import keep_freed_memory

if "keep" in sys.argv and not keep_freed_memory():
    sys.exit(3)
for at in range(11):
    if at == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages_made(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", PAGES_MADE, *arguments], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library does not have glibc's settings")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_that_was_freed_is_used_again_without_asking_the_system():
    assert _pages_made("keep") < _pages_made() / 10
