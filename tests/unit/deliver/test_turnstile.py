"""The reactor of an association stands still while an answer is waited for, however quickly messages follow."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.deliver.turnstile import Turnstile
from tests.live import until


@pytest.fixture
def association() -> Any:
    return SimpleNamespace(_is_paused=True, _kill=False)


def test_a_reactor_that_was_let_pass_and_has_not_come_back_is_not_said_to_stand_still(association: Any) -> None:
    turnstile = Turnstile(association)
    turnstile.wait()  # comes back at once; pynetdicom's flag is still up
    turnstile.clear()
    assert not association._is_paused


def test_a_reactor_that_waits_stands_still_until_it_is_let_pass(association: Any) -> None:
    turnstile, passed = Turnstile(association), threading.Event()
    turnstile.clear()

    def react() -> None:
        turnstile.wait()
        passed.set()

    reactor = threading.Thread(target=react)
    reactor.start()
    until(lambda: turnstile._waits, "it waits")
    for _ in range(1000):  # let pass and held back again: it either stands, or is not said to
        turnstile.set()
        turnstile.clear()
        if not association._is_paused:
            break
        assert not passed.is_set()
    turnstile.set()
    reactor.join(60)
    assert passed.is_set()
    turnstile.clear()
    assert not association._is_paused


def test_nobody_waits_for_a_reactor_that_has_ended(association: Any) -> None:
    association._kill = True
    Turnstile(association).clear()
    assert association._is_paused
