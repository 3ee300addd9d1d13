"""`qml-nb work` says what it does, waits for its storage, and names what it can't work with."""

from __future__ import annotations

import asyncio

import pytest

from qml_nb import Job
from qml_nb.servers import LocalServer
from tests.cli.workers import counted, until


async def test_it_says_what_it_does(address, storage, place) -> None:
    url = address.url.replace("postgres@", "postgres:geheim@")
    options = ("--queues", "critical=6,bulk=1", "--workers", "7", "--name", "mailer")
    worker = place.work(url, *address.words, *options)
    await until(lambda: "works" in worker.said)
    [server] = await storage.list_servers()
    shown = url.replace("geheim", "***")
    assert (
        f"{server.server_id} works: 7 slots, queues critical=6, bulk=1 of {shown}, tasks hold, block, pid, hog"
        in worker.said
    )
    assert (server.server_name, server.queues) == ("mailer", ("critical", "bulk"))
    worker.tell()
    assert worker.status() == 0
    assert "0 succeeded, 0 failed" in worker.said
    assert "geheim" not in worker.said


async def test_the_options_act(address, storage, place) -> None:
    place.go()
    await storage.enqueue_many([Job("hold", [number], queue=queue) for number, queue in enumerate(("a", "b", "c"))])
    worker = place.work(address.url, *address.words, "--queues", "a, c", "--queue-order", "strict")
    await until(counted(storage, succeeded=2, enqueued=1))
    other = place.work(address.url, *address.words, "--all-queues")
    await until(counted(storage, succeeded=3))
    for each in (worker, other):
        each.tell()
        assert each.status() == 0
    assert "all queues" in other.said


async def test_a_job_without_a_timeout_of_its_own_gets_that_of_the_command(address, storage, place) -> None:
    job = Job("hold", [1])
    await storage.enqueue(job)
    worker = place.work(address.url, *address.words, "--job-timeout", "0.1")
    await until(counted(storage, failed=1))
    assert "ran longer than its timeout of 0.1 s" in (await storage.get(job.id)).error
    worker.tell()
    assert worker.status() == 0


@pytest.mark.parametrize("many", [1, 2])
async def test_tasks_that_use_a_processor_run_in_so_many_processes(address, storage, place, many) -> None:
    jobs = [Job("pid") for _ in range(6)]
    await storage.enqueue_many(jobs)
    worker = place.work(address.url, *address.words, "--task-processes", str(many))
    await until(counted(storage, succeeded=6))
    assert len({(await storage.get(job.id)).result for job in jobs}) == many
    worker.tell()
    assert worker.status() == 0


# -- a storage that is away


@pytest.fixture
def away(server: LocalServer) -> LocalServer:
    """A server of the test's own, which does not run."""
    server.kill()
    return server


async def test_a_storage_that_is_away_is_waited_for(away, place) -> None:
    worker = place.work(away.url)
    await until(lambda: "can't start yet, and tries on" in worker.said)
    away.restart()
    await until(lambda: "works" in worker.said)
    worker.tell()
    assert worker.status() == 0, worker.said
    assert worker.said.count("can't start yet") == 1
    assert "Traceback" not in worker.said


async def test_it_stops_while_it_waits(away, place) -> None:
    worker = place.work(away.url)
    await until(lambda: "can't start yet" in worker.said)
    worker.tell()
    assert worker.status() == 0, worker.said


async def test_on_demand_it_does_not_wait(away, place) -> None:
    worker = place.work(away.url, "--no-wait")
    assert worker.status() == 1
    assert worker.said.splitlines()[-1].startswith("qml-nb: no connection to Redis at 127.0.0.1:")
    assert "Traceback" not in worker.said


# -- what can't work


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        ("nowhere:registry", "expected registry to begin with a module, got 'nowhere'; there is none below"),
        ("tasks.deeper:registry", "expected registry to begin with a module, got 'tasks.deeper'"),
        ("tasks.py:registry", "write tasks:registry"),
        ("./tasks", "write tasks:registry"),
        ("tasks:rejistry", "expected registry to be in tasks, got 'rejistry'; there is tasks:registry"),
        ("tasks:note", "expected tasks:note to be a WorkerRegistry, got <function note"),
        ("empty", "expected empty:registry to have tasks, got WorkerRegistry(); register them with @registry.task"),
        ("two", "expected registry to say which one of two, got 'two'; there is two:first, two:second"),
        ("none", "none has no WorkerRegistry"),
    ],
)
def test_a_registry_that_is_not_there_is_named(place, registry, says) -> None:
    (place.folder / "empty.py").write_text("from qml_nb import WorkerRegistry\nregistry = WorkerRegistry()\n")
    (place.folder / "two.py").write_text(
        "from qml_nb import WorkerRegistry\nfirst, second = WorkerRegistry(), WorkerRegistry()\n"
    )
    (place.folder / "none.py").write_text("")
    worker = place.work("memory://", registry=registry)
    assert worker.status() == 1
    assert says in worker.said
    assert "Traceback" not in worker.said


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("x = = 3", "SyntaxError: invalid syntax"),
        (
            "from qml_nb import Job\nJob('a', max_retries=-1)",
            "qml_nb.errors.InvalidJob: expected max_retries to be at least 0",
        ),
        ("raise LookupError('no settings')", "LookupError: no settings"),
    ],
)
def test_an_error_in_the_module_is_shown_from_its_first_line_on(place, source, last) -> None:
    (place.folder / "app.py").write_text(source)
    worker = place.work("memory://", registry="app:registry")
    assert worker.status() == 1
    assert last in worker.said
    assert f'File "{place.folder / "app.py"}", line' in worker.said
    assert "finding.py" not in worker.said
    assert worker.said.endswith("qml-nb: app could not be imported\n")


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--queues", "a=6,b"], 1, "expected --queues to have a share for each queue, got 'a=6,b'"),
        (["--queues", ","], 1, "expected --queues to name a queue"),
        (["--queues", "a=0"], 1, "expected queues['a'] to be a number from 1e-9 to 1e9"),
        (["--queue-order", "fair"], 2, "--queue-order"),
        (["--all-queues", "--queue-order", "strict"], 1, "expected queues to be named where queue_order is strict"),
        (["--workers", "0"], 2, "--workers"),
        (["--lease", "0"], 1, "expected lease to be above 0 seconds"),
        (["--key-prefix", "x"], 1, "MemoryConfig has no option 'key_prefix'"),
        (["--log-level", "loud"], 2, "--log-level"),
    ],
)
def test_an_option_that_can_not_be_is_named(place, options, status, says) -> None:
    worker = place.work("memory://", *options)
    assert worker.status() == status
    assert says in worker.said
    assert "Traceback" not in worker.said


def test_a_module_with_one_registry_needs_no_other_name(place) -> None:
    worker = place.work("memory://", registry="tasks")
    asyncio.run(until(lambda: "works" in worker.said))
    worker.tell()
    assert worker.status() == 0, worker.said
