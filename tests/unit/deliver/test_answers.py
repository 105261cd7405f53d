from __future__ import annotations

import pytest

from dicom_node.deliver.answers import Meaning, judge_rejection, judge_status


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007])
def test_success_and_the_storage_warnings_mean_stored(status):
    assert judge_status(status)[0] is Meaning.STORED


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213])
def test_what_may_pass_means_away(status):
    assert judge_status(status)[0] is Meaning.AWAY


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0122, 0x0124, 0xFF00, 0xB0FF, 0x1234])
def test_everything_else_means_refused(status):
    assert judge_status(status)[0] is Meaning.REFUSED


@pytest.mark.parametrize("reason", [(1, 1, 3), (1, 1, 7), (1, 1, 1), (2, 3, 1), (2, 3, 2), (2, 2, 1)])
def test_a_rejection_that_people_can_lift_means_away(reason):
    assert judge_rejection(*reason)[0] is Meaning.AWAY


@pytest.mark.parametrize("reason", [(1, 1, 2), (1, 2, 2)])
def test_a_peer_that_speaks_another_protocol_means_refused(reason):
    assert judge_rejection(*reason)[0] is Meaning.REFUSED


def test_a_rejection_is_told_in_words():
    assert judge_rejection(1, 1, 7)[1] == "called AE title not recognised (permanently)"
    assert judge_rejection(2, 3, 2)[1] == "local limit exceeded (for now)"
