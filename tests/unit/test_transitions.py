"""The table of moves is that of the design."""

import pytest

from qml_nb.states import AWAITING_RETRY, FINAL, LIVE, TRANSITIONS, JobState

ENQUEUED, PROCESSING, SCHEDULED, SUCCEEDED, FAILED, DELETED = (
    *[JobState.ENQUEUED, JobState.PROCESSING, JobState.SCHEDULED],
    *[JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED],
)
DESIGN = {
    ENQUEUED: {PROCESSING, SCHEDULED, FAILED, DELETED},
    SCHEDULED: {ENQUEUED, DELETED},
    PROCESSING: {SUCCEEDED, FAILED, AWAITING_RETRY, DELETED, ENQUEUED},
    AWAITING_RETRY: {ENQUEUED, DELETED},
    FAILED: {ENQUEUED, AWAITING_RETRY, DELETED},
    SUCCEEDED: {DELETED},
    DELETED: set(),
}


def test_the_moves_are_those_of_the_design() -> None:
    assert {state: set(to) for state, to in TRANSITIONS.items()} == DESIGN


def test_every_state_is_either_live_or_final() -> None:
    assert LIVE | FINAL == set(JobState) == set(TRANSITIONS)
    assert not LIVE & FINAL


def test_the_table_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[DELETED] = frozenset((ENQUEUED,))  # type: ignore[index]
