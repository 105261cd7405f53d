"""The transition table and its picture."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from dicom_node.domain.errors import IllegalTransitionError
from dicom_node.domain.states import TRANSITIONS, Action, State, diagram, next_state, sources

ROOT = Path(__file__).resolve().parents[3]


def test_the_diagram_in_the_architecture_is_the_tables() -> None:
    assert diagram() in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_only_what_the_table_lists_is_allowed(state: State, action: Action) -> None:
    if (state, action) in TRANSITIONS:
        assert next_state(state, action) is TRANSITIONS[state, action]
        assert state in sources(action)
    else:
        with pytest.raises(IllegalTransitionError, match=f"a {state} work item cannot {action}"):
            next_state(state, action)


def test_completed_is_final() -> None:
    assert not [s for s, _ in TRANSITIONS if s is State.COMPLETED]


def test_every_state_can_be_reached_from_scheduled() -> None:
    reached = {State.SCHEDULED}
    for _ in State:
        reached |= {after for (before, _a), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)
