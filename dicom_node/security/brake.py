"""How long who failed must wait, and whom that is counted against. Pure: who counts the failures is elsewhere."""

from __future__ import annotations

import hashlib
import ipaddress

FREE_FAILURES = 4
"""So many failures cost nothing: people mistype."""


def wait(failures: int, since_last: float, longest: float) -> float:
    """Return for how many seconds somebody must still wait; 0 or less for not at all.

    After some free failures the wait is doubled each time.

    Parameters
    ----------
    failures
        How often he failed.
    since_last
        Seconds since the last of them; less than 0 where the clock was set back.
    longest
        Nobody waits longer than that, in seconds.
    """
    if failures <= FREE_FAILURES:
        return 0.0
    return min(2.0 ** min(failures - FREE_FAILURES, 20), longest) - max(since_last, 0.0)


def neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, which one machine has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)


def bucket(name: str) -> str:
    """Return one of 65 536 places that a name is counted in.

    So few, because what is typed as a name may be a passcode: no one could find it from that. Two names in one place
    wait for each other's failures.
    """
    return hashlib.sha256(name.encode()).hexdigest()[:4]
