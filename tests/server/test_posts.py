"""When a pool's server is replaced: soon, then less and less often, and not for ever if none starts."""

from __future__ import annotations

import pytest

from qml_nb import ServerDied, StorageUnavailable
from qml_nb.server.posts import STEADY, Pauses

DEATH = ServerDied("mailer", "was killed by signal 9")


def test_each_pause_is_twice_the_last_up_to_half_a_minute() -> None:
    pauses, now = Pauses(0.0), 0.0
    waited = []
    for _ in range(9):
        waited.append(pauses.after(DEATH, started=True, now=now))
        now += waited[-1]
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_server_that_was_steady_counts_as_the_first() -> None:
    pauses = Pauses(0.0)
    assert [pauses.after(DEATH, started=True, now=0.0) for _ in range(3)] == [0.5, 1, 2]
    began = 2.0  # after the last pause
    assert pauses.after(DEATH, started=True, now=began + STEADY - 0.5) == 4
    assert pauses.after(DEATH, started=True, now=began + STEADY - 0.5 + 4 + STEADY) == 0.5


def test_three_in_turn_that_have_not_started_are_the_end() -> None:
    pauses = Pauses(0.0)
    for started in (False, False, True, False, False):
        pauses.after(DEATH, started=started, now=0.0)
    with pytest.raises(ServerDied):
        pauses.after(DEATH, started=False, now=0.0)


def test_a_storage_that_is_away_is_asked_again_and_again() -> None:
    pauses = Pauses(0.0)
    away = StorageUnavailable("refused")
    assert {pauses.after(away, started=False, now=float(now)) for now in range(9)} == {0.5}
