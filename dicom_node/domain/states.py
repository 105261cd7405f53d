"""The states of a work item: one table, from which the diagram in ARCHITECTURE.md is drawn.

The states are those of a Unified Procedure Step (PS3.4 section CC.1.1) and FAILED, which the standard
folds into CANCELED and which people here need to see apart.
"""

from __future__ import annotations

from enum import StrEnum

from dicom_node.domain.errors import IllegalTransitionError


class State(StrEnum):
    """State of a work item."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    FAILED = "FAILED"


class Action(StrEnum):
    """What can happen to a work item."""

    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    EXPIRE = "expire"
    FAIL = "fail"
    CANCEL = "cancel"
    REQUEUE = "requeue"


TRANSITIONS: dict[tuple[State, Action], State] = {
    (State.SCHEDULED, Action.CLAIM): State.IN_PROGRESS,
    (State.SCHEDULED, Action.CANCEL): State.CANCELED,
    (State.IN_PROGRESS, Action.COMPLETE): State.COMPLETED,
    (State.IN_PROGRESS, Action.RETRY): State.SCHEDULED,
    (State.IN_PROGRESS, Action.EXPIRE): State.SCHEDULED,
    (State.IN_PROGRESS, Action.FAIL): State.FAILED,
    (State.IN_PROGRESS, Action.CANCEL): State.CANCELED,
    (State.FAILED, Action.REQUEUE): State.SCHEDULED,
    (State.FAILED, Action.CANCEL): State.CANCELED,
    (State.CANCELED, Action.REQUEUE): State.SCHEDULED,
}


def next_state(state: State, action: Action) -> State:
    """Return the state that follows.

    Raises
    ------
    IllegalTransitionError
        If `state` does not allow `action`; the message lists what it does allow.
    """
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        allowed = ", ".join(a for s, a in TRANSITIONS if s is state) or "nothing"
        raise IllegalTransitionError(f"a {state} work item cannot {action}; it allows: {allowed}") from None


def sources(action: Action) -> tuple[State, ...]:
    """Return the states in which `action` is allowed."""
    return tuple(s for s, a in TRANSITIONS if a is action)


def diagram() -> str:
    """Return the transition table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> SCHEDULED"]
    lines += [f"    {state} --> {after}: {action}" for (state, action), after in TRANSITIONS.items()]
    return "\n".join([*lines, "    COMPLETED --> [*]"])
