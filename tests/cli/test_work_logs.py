"""What `qml-nb work` writes on stderr, and what it answers Prometheus."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from urllib.request import urlopen

import pytest

from qml_nb import Job
from tests.cli.workers import LONG, counted, until

LOUD = """
import logging
{setup}
from tasks import registry

@registry.task
def talk():
    logging.getLogger("app").info("hello")
    logging.getLogger("app").debug("whisper")
"""


@pytest.fixture
async def loud(address, storage, place) -> Callable[..., Awaitable[str]]:
    """Runs one job that writes to a log, and returns what the worker has written."""

    async def run(*options: str, setup: str = "") -> str:
        (place.folder / "loud.py").write_text(LOUD.format(setup=setup))
        job = Job("talk")
        await storage.enqueue(job)
        worker = place.work(address.url, *address.words, *options, registry="loud:registry")
        await until(counted(storage, succeeded=1))
        worker.tell()
        assert worker.status() == 0
        return worker.said.replace(job.id, "ID")

    return run


async def test_logs_are_text_and_say_which_job_was_running(loud) -> None:
    said = await loud()
    assert " INFO app: hello talk ID\n" in said
    assert "whisper" not in said


async def test_logs_are_json_on_demand(loud) -> None:
    lines = [json.loads(line) for line in (await loud("--log-format", "json")).splitlines()]
    [line] = [line for line in lines if line["logger"] == "app"]
    assert (line["level"], line["message"], line["method"], line["job_id"]) == ("INFO", "hello", "talk", "ID")
    assert any("works: 10 slots" in line["message"] for line in lines)


async def test_logs_of_other_processes_are_like_those_of_the_first(loud) -> None:
    lines = [json.loads(line) for line in (await loud("--log-format", "json", "--processes", "1")).splitlines()]
    assert [line["method"] for line in lines if line["message"] == "hello"] == ["talk"]


async def test_logs_have_a_level(loud) -> None:
    assert await loud("--log-level", "warning") == ""


@pytest.mark.parametrize(("options", "is_theirs"), [((), True), (("--log-level", "debug"), False)])
async def test_logs_that_the_application_has_set_up_stay_unless_others_are_asked_for(loud, options, is_theirs) -> None:
    said = await loud(*options, setup='logging.basicConfig(format="theirs: %(message)s", level="INFO")')
    assert ("theirs: hello" in said, " DEBUG app: whisper talk ID" in said) == (is_theirs, not is_theirs)


async def test_prometheus_is_answered(address, storage, place) -> None:
    place.go()
    await storage.enqueue(Job("hold", [1]))
    worker = place.work(address.url, *address.words, "--metrics-port", "0", "--workers", "7")
    await until(counted(storage, succeeded=1))
    await until(lambda: "works" in worker.said)
    url = worker.said.partition("metrics at ")[2].split()[0]

    async def scraped() -> str:
        return await asyncio.to_thread(lambda: urlopen(url, timeout=LONG).read().decode())

    await until(
        lambda: counted_in(scraped, 'qml_jobs_processed_total{method="hold",queue="default",state="succeeded"} 1.0')
    )
    [server] = await storage.list_servers()
    assert f'qml_slots{{server="{server.server_id}"}} 7.0' in await scraped()
    worker.tell()
    assert worker.status() == 0, worker.said


async def counted_in(scraped: Callable[[], Awaitable[str]], line: str) -> bool:
    return line in await scraped()


def test_a_port_that_is_taken_is_named(place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = place.work("memory://", "--metrics-port", str(port))
        assert worker.status() == 2
    assert worker.said == f"qml-nb: no metrics at 127.0.0.1:{port}: Address already in use\n"
