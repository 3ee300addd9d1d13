"""How many connections a storage takes, how many jobs it takes in, and how long it keeps what is finished."""

import asyncio
from typing import Any

import pytest

from qml_nb.errors import CapacityExceeded, QueueFull
from qml_nb.job import Job
from qml_nb.servers import LocalServers
from qml_nb.states import JobState
from qml_nb.storage.storage import Storage
from tests.clock import at
from tests.contract.states import bring_to, claim, ids, put
from tests.servers.asking import ask

CALLS = 500
FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED)


def connections(url: str, name: str) -> int:
    """How many connections a client of that name has for commands; one more of redis-py asks where the slots are."""
    return sum(client["name"] == name and client["cmd"] != "cluster|slots" for client in ask(url, "CLIENT LIST"))


# -- pool_size


@pytest.mark.parametrize("pool_size", [1, 3, 10])
async def test_no_more_connections_than_the_pool_has(connect: Any, url: str, pool_size: int) -> None:
    storage = await connect(f"{url}?client_name=pool-{pool_size}", pool_size=pool_size)
    jobs = await put(storage, CALLS)
    looking = [asyncio.create_task(storage.get(job.id)) for job in jobs]
    claiming = [asyncio.create_task(storage.fetch_and_lock_job("worker")) for _ in jobs]
    most = 0
    while not all(task.done() for task in looking + claiming):
        most = max(most, connections(url, f"pool-{pool_size}"))
        await asyncio.sleep(0)

    assert most == connections(url, f"pool-{pool_size}") == pool_size
    assert ids([task.result() for task in looking]) == ids(jobs)
    assert {task.result().id for task in claiming} == {job.id for job in jobs}


async def test_one_after_the_other_needs_one_connection(connect: Any, url: str) -> None:
    storage = await connect(f"{url}?client_name=alone")
    for job in await put(storage, 20):
        await storage.get(job.id)

    assert connections(url, "alone") == 1


async def test_a_cluster_node_gets_no_more_connections_than_the_pool_has(
    connect: Any, servers: LocalServers, cluster_url: str
) -> None:
    storage = await connect(f"{cluster_url}?client_name=pool", pool_size=3)
    jobs = await put(storage, CALLS)
    looking = [asyncio.create_task(storage.get(job.id)) for job in jobs]
    most = 0
    while not all(task.done() for task in looking):
        most = max(most, *(connections(node.url, "pool") for node in servers.nodes))
        await asyncio.sleep(0)

    assert most <= 3
    assert ids([task.result() for task in looking]) == ids(jobs)


async def test_who_waits_for_work_takes_no_connection_from_others(connect: Any, url: str) -> None:
    storage = await connect(url, pool_size=1)
    waiting = [asyncio.create_task(storage.wait([f"queue {number}"], 30)) for number in range(5)]
    await asyncio.sleep(0.1)

    async with asyncio.timeout(5):
        for number in range(5):
            await storage.enqueue(Job("work", queue=f"queue {number}"))
        assert await asyncio.gather(*waiting) == [True] * 5


# -- max_jobs


async def test_max_jobs_bounds_what_is_unfinished_over_all_connections(connect: Any, url: str) -> None:
    one, other = await connect(url, max_jobs=3), await connect(url, max_jobs=3)
    await put(one, 2)
    await put(other)

    with pytest.raises(CapacityExceeded, match=r"holds 3 unfinished jobs of at most max_jobs=3, so 1 more"):
        await put(one)
    await one.complete(await claim(one))
    await put(other)


async def test_without_max_jobs_all_are_taken(connect: Any, url: str) -> None:
    storage = await connect(url)

    assert len(await put(storage, 10_000)) == (await storage.get_job_counts())[JobState.ENQUEUED]


# -- completed_job_ttl, failed_job_ttl


@pytest.mark.parametrize("state", FINAL)
@pytest.mark.parametrize(("completed", "failed"), [(10, 20), (20, 10), (None, 10), (10, None)])
async def test_each_ttl_is_for_its_own_states(
    connect: Any, url: str, state: JobState, completed: float | None, failed: float | None
) -> None:
    storage = await connect(url, completed_job_ttl=completed, failed_job_ttl=failed)
    ttl = failed if state is JobState.FAILED else completed
    job = await bring_to(storage, state)

    await storage.sweep(now=at((ttl or 10_000) - 1))
    assert await storage.get(job.id)
    await storage.sweep(now=at((ttl or 10_000) + 1))
    assert bool(await storage.get(job.id)) == (ttl is None)


# -- max_finished_jobs


@pytest.fixture
async def of_three(connect: Any, url: str) -> Storage:
    """A storage that keeps three finished jobs."""
    storage: Storage = await connect(url, max_finished_jobs=3)
    return storage


async def test_the_oldest_finished_go_first_over_all_final_states(of_three: Storage) -> None:
    order = [*FINAL, *FINAL[::-1], JobState.FAILED]
    jobs = [await bring_to(of_three, state, now=number) for number, state in enumerate(order)]

    assert ids(await of_three.list()) == ids(jobs[:-4:-1])
    assert sum((await of_three.get_job_counts()).values()) == 3


async def test_the_instant_of_finishing_counts_not_that_of_making(of_three: Storage) -> None:
    jobs = await put(of_three, 4)
    claims = {job.id: job for job in await of_three.fetch_available_jobs_atomic("worker", now=at(0))}
    for second, number in enumerate([3, 0, 2, 1]):
        await of_three.complete(claims[jobs[number].id], now=at(second))

    assert ids(await of_three.list()) == ids([jobs[2], jobs[1], jobs[0]])


@pytest.mark.parametrize("state", FINAL)
async def test_a_job_of_any_final_state_may_be_the_one_to_go(connect: Any, url: str, state: JobState) -> None:
    storage = await connect(url, max_finished_jobs=1)
    gone = await bring_to(storage, state, now=0)
    kept = await bring_to(storage, FINAL[FINAL.index(state) - 1], now=1)

    assert ids(await storage.list()) == [kept.id]
    assert await storage.get(gone.id) is None


async def test_unfinished_jobs_are_not_counted(of_three: Storage) -> None:
    finished = [await bring_to(of_three, JobState.SUCCEEDED) for _ in range(3)]
    await bring_to(of_three, JobState.SCHEDULED)
    await put(of_three, 5)

    assert set(ids(finished)) <= set(ids(await of_three.list()))


async def test_many_at_once_are_bounded_too(connect: Any, url: str) -> None:
    storage = await connect(url, max_finished_jobs=7)
    await put(storage, 2_500)
    claims = await storage.fetch_available_jobs_atomic("worker", 2_500)
    await asyncio.gather(*map(storage.complete, claims))

    assert (await storage.get_job_counts())[JobState.SUCCEEDED] == len(await storage.list()) == 7


async def test_nothing_may_be_kept(connect: Any, url: str) -> None:
    storage = await connect(url, max_finished_jobs=0)
    [job] = await put(storage)

    assert await storage.complete(await claim(storage))
    assert await storage.get(job.id) is None


# -- max_waiting, beyond what one call of a script carries

MANY = 1_300


async def several(storage: Storage) -> list[Job]:
    """Jobs for a queue with a bound of a thousand, and for one without."""
    await storage.configure_queue("bounded", max_waiting=1_000)
    return [Job("work", queue=("bounded", "free")[number % 2]) for number in range(MANY)]


async def test_many_jobs_come_in_where_all_fit(storage: Storage) -> None:
    jobs = await several(storage)

    assert await storage.enqueue_many(jobs) == MANY
    assert await storage.enqueue_many(jobs) == 0

    assert ids((await storage.list(limit=MANY))[::-1]) == ids(jobs)


async def test_many_jobs_that_do_not_all_fit_are_refused_whole(storage: Storage) -> None:
    jobs = await several(storage)
    await put(storage, 400, queue="bounded")

    with pytest.raises(QueueFull) as refusal:
        await storage.enqueue_many(jobs)

    assert (refusal.value.queue, refusal.value.max_waiting, refusal.value.offered) == ("bounded", 1_000, MANY // 2)
    assert (await storage.get_job_counts())[JobState.ENQUEUED] == 400


async def test_many_jobs_one_by_one_leave_out_what_finds_no_room(storage: Storage) -> None:
    jobs = await several(storage)
    await put(storage, 400, queue="bounded")

    answers = await storage.backend.push(jobs, each=True)

    assert answers[1::2] == [True] * (MANY // 2)
    assert answers[::2] == [True] * 600 + [None] * (MANY // 2 - 600)


async def test_more_jobs_than_a_command_takes_come_in_at_once(storage: Storage) -> None:
    await storage.configure_queue("default", max_waiting=10_000)

    assert len(await put(storage, 10_000)) == (await storage.get_job_counts())[JobState.ENQUEUED]
    with pytest.raises(QueueFull):
        await put(storage)


async def test_many_jobs_drop_down_to_the_bound(storage: Storage) -> None:
    await storage.configure_queue("default", max_waiting=10, when_full="drop_oldest")

    jobs = await put(storage, MANY)

    assert ids(await storage.get_available_jobs(MANY)) == ids(jobs[-10:])
    assert (await storage.get_job_counts())[JobState.DELETED] == MANY - 10


async def test_many_jobs_keep_to_the_bound_of_the_storage_too(connect: Any, url: str) -> None:
    storage = await connect(url, max_jobs=MANY - 1)
    jobs = await several(storage)

    with pytest.raises(CapacityExceeded) as refusal:
        await storage.enqueue_many(jobs)

    assert refusal.type is CapacityExceeded
    assert (refusal.value.stored, refusal.value.offered) == (0, MANY)
    assert await storage.list() == []


async def test_a_bound_of_a_queue_holds_up_no_other_one(storage: Storage) -> None:
    await storage.configure_queue("bounded", max_waiting=1)

    assert len(await put(storage, MANY)) == (await storage.get_job_counts())[JobState.ENQUEUED]
