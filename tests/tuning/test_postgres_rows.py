"""The guide's rows about PostgreSQL can be run, and say what is measured beside what it claims."""

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from qml_nb.cli import app
from qml_nb.measure import read_postgres
from qml_nb.servers import LocalServers
from qml_nb.tuning import postgres_indexes, postgres_plain, postgres_rows, rows
from qml_nb.tuning.postgres_rows import ROWS
from qml_nb.tuning.rows import Row

GUIDE = {*range(23, 30), 32, 35, 41, *range(46, 50), 55, 56}
JOBS = 2_000


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    """All rows, of few jobs: what is tested is that they run, not how fast this machine is now."""
    with pytest.MonkeyPatch.context() as patch:
        few = {postgres_rows: {"JOBS": JOBS}, postgres_indexes: {"STORED": 50_000}}
        few |= {rows: {"FETCHES": 100, "RACE_JOBS": 300, "LOCK_TASKS": 200}}
        for module, sizes in few.items():
            for name, size in sizes.items():
                patch.setattr(module, name, size)
        return list(postgres_rows.postgres_rows())


def of(measured: list[Row], number: int) -> dict[str, float]:
    return {row.what: row.value for row in measured if row.row == number}


def test_every_row_about_postgres_runs_and_gives_figures(measured: list[Row]) -> None:
    assert {row.row for row in measured} == set(ROWS) == GUIDE
    assert all(row.value > 0 for row in measured if row.unit in ("jobs/s", "ms", "calls/s"))


def test_each_figure_is_told_apart(measured: list[Row]) -> None:
    assert len({(row.row, row.what) for row in measured}) == len(measured)


def test_no_job_of_the_race_is_fetched_twice(measured: list[Row]) -> None:
    assert list(of(measured, 32).values()) == [300, 0]


def test_one_of_those_who_try_the_lock_wins(measured: list[Row]) -> None:
    assert of(measured, 35)["200 tasks try one job's lock once: winners"] == 1


def test_every_fetch_uses_an_index(measured: list[Row]) -> None:
    assert of(measured, 28)["share of the scans that used an index"] == 100


@pytest.mark.parametrize(
    ("number", "plan"),
    [
        (46, ": Index Scan on idx_jobs_state_priority"),
        (47, " on idx_jobs_queue_state, (Incremental )?Sort"),  # it has no created_at, by which the guide sorts
        (48, " on idx_jobs_retry_time(, Sort)?"),  # so many are due that either way costs the same
        (49, ": Index Scan on idx_jobs_failed"),
    ],
)
def test_each_index_of_the_guide_is_used_once_it_is_there(measured: list[Row], number: int, plan: str) -> None:
    without, with_it = of(measured, number)
    assert without.endswith("no index: Seq Scan, Sort")
    assert re.search(f"{plan}$", with_it)


def test_the_monitored_figures_are_those_of_the_jobs(measured: list[Row]) -> None:
    tables, statements = of(measured, 55), of(measured, 56)
    assert tables["qml_jobs: inserts"] == tables["qml_jobs: deletes"] == tables["qml_jobs_done: inserts"] == JOBS + 1
    assert tables["qml_jobs: seq rows read"] == 0
    assert any(what.startswith("qml_jobs_settle: mean") for what in statements)
    assert statements["a job stored, fetched and completed costs, wal bytes"] > 300


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LocalServers() as servers:
        yield servers.postgres()


@pytest.mark.parametrize(("prepared", "transactions"), [(False, 600), (True, 300)])
def test_the_naive_ways_commit_each_job_and_the_reset_of_a_pool_is_one_more(
    url: str, prepared: bool, transactions: int
) -> None:
    before = read_postgres(url).commits
    asyncio.run(postgres_plain.insert_rate(url, 300, 100, prepared=prepared))

    assert transactions <= read_postgres(url).commits - before < transactions + 200
    assert stored(url) == 300


def test_the_batched_way_commits_a_hundred_at_a_time(url: str) -> None:
    before = read_postgres(url).commits
    asyncio.run(postgres_plain.batch_rate(url, 3_000, 100))

    assert 30 <= read_postgres(url).commits - before < 300
    assert stored(url) == 3_000


def stored(url: str) -> int:
    [table] = read_postgres(url, schema_name="public", table_name="guide_jobs").tables
    return table.inserts


def test_the_command_takes_rows_of_both_storages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LOCK_TASKS", 200)
    done = CliRunner().invoke(app, ["bench", "rows", "34", "35", "--json"])

    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)["rows"]
    assert [(row["row"], row["claim"]) for row in printed if row["what"].endswith("mean wait")] == [
        (34, "2.5 ms"),
        (35, "8 ms"),
    ]


def test_only_the_rows_asked_for_are_printed() -> None:
    done = CliRunner().invoke(app, ["bench", "rows", "23", "--json"])

    assert done.exit_code == 0, done.output
    assert [row["row"] for row in json.loads(done.stdout)["rows"]] == [23]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["99"], "no row 99; there are 17, 18, 19, 20, 21, 22, 23, 24"),
        (["34", "--storage", "postgres"], "no row 34 about postgres; there are 23, 24"),
        (["--storage", "oracle"], "expected --storage to be redis or postgres, got 'oracle'"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(arguments: list[str], why: str) -> None:
    done = CliRunner().invoke(app, ["bench", "rows", *arguments])

    assert done.exit_code == 2
    assert why in done.stderr
