"""The measurement of servers in processes measures what it says."""

from __future__ import annotations

from time import process_time

from qml_nb.servers import LocalServers
from qml_nb.tuning.process_servers import compute, computing_rate, rounds_in, two_against_one


def test_rounds_are_of_processor_time() -> None:
    rounds = rounds_in(0.05)
    began = process_time()
    compute(rounds)
    assert 0.01 < process_time() - began < 0.25
    assert compute(5) == 2


def test_one_server_and_two_finish_the_jobs(monkeypatch) -> None:
    monkeypatch.setattr("qml_nb.tuning.process_servers.JOBS", 10)
    with LocalServers() as servers:
        url = servers.redis()
        assert computing_rate(url, 1, jobs=10, rounds=10) > 0
        ratio = two_against_one(url, 1)
    assert (ratio.unit, ratio.value > 0) == ("times", True)
    assert ratio.what == "two servers in processes against one, jobs that compute for 5 ms"
