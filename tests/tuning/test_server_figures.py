"""`qml-nb bench servers` measures on real servers what the pools and servers of this library keep to."""

import pytest

from qml_nb.tuning import process_servers, server_figures
from qml_nb.tuning.figures import Figure


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    """All figures, of few jobs: what is tested is that they are measured, not how fast this machine is now."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in (("JOBS", 2_000), ("DUE_A_SECOND", 500), ("DUE_SECONDS", 1), ("RECURRING_SECONDS", 3)):
            patch.setattr(server_figures, name, few)
        fewer = process_servers.computing_rate.__kwdefaults__ | {"jobs": 40}
        patch.setattr(process_servers.computing_rate, "__kwdefaults__", fewer)
        said: list[str] = []
        measured = list(server_figures.server_figures("redis", 1, said.append))
    assert all(said)
    return measured


def named(figures: list[Figure], words: str) -> Figure:
    [found] = [one for one in figures if words in one.what]
    return found


def test_what_is_observed_stands_beside_what_is_not(figures: list[Figure]) -> None:
    assert all(named(figures, words).share for words in ("telemetry", "a middleware", "a hook"))


def test_no_job_is_lost_or_runs_twice_through_a_stop(figures: list[Figure]) -> None:
    assert named(figures, "lost or run twice").value == 0


def test_no_server_outlives_its_kernel(figures: list[Figure]) -> None:
    assert named(figures, "kernel killed").reached


def test_what_was_due_was_handed_out(figures: list[Figure]) -> None:
    assert named(figures, "longest").value > 0


def test_no_second_fires_twice(figures: list[Figure]) -> None:
    assert named(figures, "firings").value >= 2
    assert named(figures, "fired twice").value == 0
