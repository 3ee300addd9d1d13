"""`qml-nb bench limits --storage redis` measures on real servers, each figure beside its limit."""

import pytest

from qml_nb.tuning import redis_limits
from qml_nb.tuning.dramatiq_drain import dramatiq_rate
from qml_nb.tuning.figures import Figure


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    """All figures, of few jobs: what is tested is that they are measured, not how fast this machine is now."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in (("JOBS", 2_000), ("SAMPLES", 20), ("RIVAL_JOBS", 200)):
            patch.setattr(redis_limits, name, few)
        said: list[str] = []
        measured = list(redis_limits.redis_figures(1, said.append))
    assert all(said)
    return measured


def test_every_figure_is_measured(figures: list[Figure]) -> None:
    goals = [one for one in figures if one.reached is not None]
    assert len(goals) == 11
    assert all(one.value > 0 for one in figures)


def test_rates_stand_beside_their_raw_limit(figures: list[Figure]) -> None:
    shares = {one.what: one.share for one in figures if one.unit == "jobs/s" and one.reached is not None}
    assert all(share is not None and share > 0 for share in shares.values()), shares


def test_a_waiting_job_takes_the_room_of_a_few_hundred_bytes(figures: list[Figure]) -> None:
    [memory] = [one for one in figures if one.unit == "bytes"]
    assert 100 < memory.value < 500


def test_the_rival_ran_all_of_its_jobs(figures: list[Figure]) -> None:
    [rival] = [one for one in figures if one.what.startswith("dramatiq")]
    assert rival.value > 0


def test_a_rival_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qml_nb.tuning.rival.find_spec", lambda _name: None)

    assert dramatiq_rate("redis://127.0.0.1:1", 1) is None
