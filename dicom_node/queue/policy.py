"""Says how long to wait before trying again. Pure: the random number comes in as an argument."""

from __future__ import annotations

from datetime import timedelta

_LARGEST_EXPONENT = 1000  # 2.0**1000 is still a float; any cap is reached long before


def backoff(attempts: int, base_seconds: float, cap_seconds: float, jitter: float) -> timedelta:
    """Return the wait after a failed attempt: capped exponential with equal jitter.

    The ceiling is ``min(cap, base * 2**(attempts - 1))``; half of it is certain and the other half is random
    ("equal jitter"), so that work that failed together does not come back together, and never at once.

    Parameters
    ----------
    attempts
        Attempts so far, >= 1.
    base_seconds, cap_seconds
        Ceiling after the first attempt, and at most; > 0.
    jitter
        Random number in [0, 1).

    Returns
    -------
    timedelta
        In [ceiling / 2, ceiling).

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    if attempts < 1 or base_seconds <= 0 or cap_seconds <= 0 or not 0 <= jitter < 1:
        raise ValueError(
            f"attempts {attempts}, base {base_seconds}, cap {cap_seconds}, jitter {jitter}: "
            "attempts must be at least 1, base and cap above 0, jitter in [0, 1)"
        )
    ceiling = min(cap_seconds, base_seconds * 2.0 ** min(attempts - 1, _LARGEST_EXPONENT))
    return timedelta(seconds=ceiling / 2 * (1 + jitter))
