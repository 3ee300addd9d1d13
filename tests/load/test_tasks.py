"""Synthetic tasks cost what they say and fail when they should; a mix draws them by weight, the same for a seed."""

from collections import Counter
from random import Random
from time import perf_counter, process_time

import pytest

from qml_nb import BackgroundJobServer, InvalidValue, Job, JobState, MemoryStorage, UnknownOption
from qml_nb.load import Mix, synthetic_tasks
from qml_nb.load.tasks import burn


def draw(mix, many=4_000, seed=1):
    random = Random(seed)
    return [mix.job(random, "default") for _ in range(many)]


def test_weights_become_shares():
    methods = Counter(job.method for job in draw(Mix(noop=3, sleep=1)))
    assert set(methods) == {"noop", "sleep"}
    assert methods["noop"] / 4_000 == pytest.approx(0.75, abs=0.05)


def test_the_failing_share_is_marked_to_fail():
    failing = sum(job.kwargs.get("fail", False) for job in draw(Mix(failing=0.25)))
    assert failing / 4_000 == pytest.approx(0.25, abs=0.05)


def test_the_same_seed_draws_the_same_jobs():
    mix = Mix(noop=1, sleep=1, cpu=1, mixed=1, failing=0.5)
    drawn = [[(job.method, job.args, job.kwargs) for job in draw(mix, 100, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("method", ["noop", "sleep", "cpu", "mixed"])
async def test_each_task_runs_and_fails_on_demand(method):
    async with MemoryStorage() as storage:
        fine = Job(method, [0.001])
        broken = Job(method, [0.001], {"fail": True})
        await storage.enqueue_many([fine, broken])
        async with BackgroundJobServer(storage, synthetic_tasks()) as server:
            await server.drained(timeout=20)
        assert (await storage.get(fine.id)).state is JobState.SUCCEEDED
        failed = await storage.get(broken.id)
        assert failed.state is JobState.FAILED
        assert "SyntheticFailure" in failed.error


def test_burning_costs_processor_time():
    began, cpu = perf_counter(), process_time()
    assert burn(0.05) > 100
    assert perf_counter() - began >= 0.05
    assert process_time() - cpu > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"noop": 0}, "mix"),
        ({"noop": -1}, "noop"),
        ({"failing": 1.5}, "failing"),
        ({"failing": float("nan")}, "failing"),
        ({"cpu_seconds": -1}, "cpu_seconds"),
        ({"sleep": "often"}, "sleep"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused_by_name(options, named):
    with pytest.raises(InvalidValue, match=named):
        Mix(**options)


def test_an_unknown_kind_of_job_is_answered_with_the_nearest():
    with pytest.raises(UnknownOption, match="noop"):
        Mix(nop=1)
