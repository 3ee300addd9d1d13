"""`qml-nb bench limits --storage postgres` measures on a real server, each figure beside pgbench with the same functions."""

from pathlib import Path

import pytest

from qml_nb.tuning import postgres_limits, postgres_raw
from qml_nb.tuning.figures import Figure
from qml_nb.tuning.pgqueuer_drain import pgqueuer_rate

FEW = {"JOBS": 2_000, "GUIDE_JOBS": 500, "GUIDE_TASKS": 50, "SAMPLES": 20, "RIVAL_JOBS": 200, "FINISHED": 1_000}
FEW |= {"IN_FRONT": 1_000, "CLAIMS": 10}


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    """All figures, of few jobs: what is tested is that they are measured, not how fast this machine is now."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in FEW.items():
            patch.setattr(postgres_limits, name, few)
        patch.setattr(postgres_raw, "SECONDS", 1)
        said: list[str] = []
        measured = list(postgres_limits.postgres_figures(1, said.append))
    assert all(said)
    assert not any("not measured" in each for each in said)
    return measured


def test_every_figure_is_measured(figures: list[Figure]) -> None:
    goals = [one for one in figures if one.reached is not None]
    assert len(goals) == 10
    assert all(one.value > 0 for one in figures)


def test_rates_stand_beside_pgbench_or_beside_the_same_without_load(figures: list[Figure]) -> None:
    shares = {one.what: one.share for one in figures if one.unit == "jobs/s" and one.reached is not None}
    assert len(shares) == 6
    assert all(share is not None and share > 0 for share in shares.values()), shares


def test_the_rival_ran_all_of_its_jobs(figures: list[Figure]) -> None:
    [rival] = [one for one in figures if one.what.startswith("pgqueuer")]
    assert rival.value > 0


def test_a_rival_or_a_pgbench_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("qml_nb.tuning.rival.find_spec", lambda _name: None)
    monkeypatch.setattr("qml_nb.tuning.postgres_raw.find_postgres", lambda: tmp_path)

    assert pgqueuer_rate("postgresql://127.0.0.1:1/x", 1) is None
    assert postgres_raw.pushed("postgresql://127.0.0.1:1/x", "qml", 1) is None
