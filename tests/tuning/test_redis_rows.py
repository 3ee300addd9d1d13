"""The guide's rows about Redis can be run, and say what is measured beside what it claims."""

import json

import pytest
from typer.testing import CliRunner

from qml_nb.cli import app
from qml_nb.tuning import redis_rows, rows
from qml_nb.tuning.redis_rows import ROWS

GUIDE = {17, 18, 19, 20, 21, 22, 31, 34, 42, 57, 58, 59}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few jobs: what is tested is that rows run, not how fast this machine is now."""
    monkeypatch.setattr(redis_rows, "JOBS", 2_000)
    for name, number in (("FETCHES", 50), ("RACE_JOBS", 300)):
        monkeypatch.setattr(rows, name, number)


@pytest.mark.usefixtures("few")
def test_every_row_about_redis_runs_and_gives_figures() -> None:
    measured = list(redis_rows.redis_rows())

    assert {row.row for row in measured} == set(ROWS) == GUIDE
    assert all(row.value >= 0 for row in measured)


@pytest.mark.usefixtures("few")
def test_no_job_of_the_race_is_fetched_twice() -> None:
    fetched, doubled = redis_rows.redis_rows([31])

    assert (fetched.value, doubled.value) == (300, 0)


@pytest.mark.usefixtures("few")
def test_one_of_those_who_try_the_lock_wins() -> None:
    winners, *_ = redis_rows.redis_rows([34])

    assert winners.value == 1


@pytest.mark.usefixtures("few")
def test_the_command_prints_the_rows_asked_for() -> None:
    done = CliRunner().invoke(app, ["bench", "rows", "34", "--json"])

    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)["rows"]
    assert {row["row"] for row in printed} == {34}
    assert printed[0]["claim"] == "1"


def test_an_unknown_row_is_named_with_those_that_there_are() -> None:
    done = CliRunner().invoke(app, ["bench", "rows", "23", "--storage", "redis"])

    assert done.exit_code == 2
    assert "no row 23 about redis; there are 17, 18, 19, 20, 21, 22, 31" in done.stderr
