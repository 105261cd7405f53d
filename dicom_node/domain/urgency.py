"""Priorities of work, as the standard names them and as the queue counts them. Standard library only; pure."""

from __future__ import annotations

STAT, HIGH, ROUTINE, LOW = 1, 3, 5, 9
"""What `work_items.priority` holds: a smaller number goes first."""

NAMES = {STAT: "STAT", HIGH: "HIGH", ROUTINE: "ROUTINE", LOW: "LOW"}

_STATED = {"STAT": STAT, "HIGH": HIGH, "MEDIUM": ROUTINE, "ROUTINE": ROUTINE, "LOW": LOW}


def stated(value: str, otherwise: int = ROUTINE) -> int:
    """Return the priority that a Scheduled Procedure Step Priority or a Requested Procedure Priority stands for."""
    return _STATED.get(value.strip().upper(), otherwise)


def name(priority: int) -> str:
    """Return the name of the priority that is at least as urgent."""
    return next((NAMES[p] for p in sorted(NAMES) if priority <= p), NAMES[LOW])
