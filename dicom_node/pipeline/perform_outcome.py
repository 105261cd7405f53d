"""What follows from a state of a procedure step that this node performs. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_node.domain.performing import Answer, Code, TaskState
from dicom_node.store.tasks import Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """The next state, what else the row is to hold, and seconds until it is due."""

    state: TaskState
    values: Mapping[str, Any] = field(default_factory=dict)
    wait: float = 0.0


def ended(state: str, task: Task) -> Outcome:
    """Return that the step has ended there already."""
    return Outcome(TaskState(state.lower()), {"reason": task.reason})


def lost(answer: Answer) -> Outcome:
    """Return that the step is not this node's, as the provider says."""
    return Outcome(TaskState.LOST, {"reason": f"the provider says: {answer.value}"})


def give_up(code: Code, reason: str) -> Outcome:
    """Return that the step is to be canceled, and why."""
    return Outcome(TaskState.CANCELING, {"discontinued": code[0], "reason": reason})
