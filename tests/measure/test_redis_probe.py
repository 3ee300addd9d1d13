"""What a Redis server says of itself is read in one call, and what a job costs it is the difference of two."""

import subprocess
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from socket import socket
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest
from redis import Redis

from qml_nb import Job, RedisStorage, StorageUnavailable
from qml_nb.errors import InvalidValue
from qml_nb.measure import RedisReading, cost_per_job, latency_history, read_redis
from qml_nb.servers import LocalServers
from qml_nb.servers.redis import find_redis

JOBS = 2_000


def free_port() -> int:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until_read(url: str) -> RedisReading:
    """Read as soon as the server can be reached."""
    end = monotonic() + 20
    while True:
        try:
            return read_redis(url)
        except StorageUnavailable:
            assert monotonic() < end
            sleep(0.05)


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalServers]:
    with LocalServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def url(servers: LocalServers) -> str:
    return servers.redis()


def test_a_reading_agrees_with_the_server(url: str) -> None:
    with Redis.from_url(url) as client:
        client.set("key", "x" * 100_000)
        before = read_redis(url)
        for name in ("key", "key", "missing"):
            client.get(name)
    after = read_redis(url)

    assert (after.keyspace_hits - before.keyspace_hits, after.keyspace_misses - before.keyspace_misses) == (2, 1)
    assert after.commands - before.commands >= 3
    assert 100_000 < after.memory_bytes <= after.peak_memory_bytes
    assert 0 < after.ping_min_ms <= after.ping_mean_ms <= after.ping_max_ms
    assert after.clients >= 1


def test_the_hit_share_is_unknown_before_the_first_lookup(servers: LocalServers) -> None:
    assert isnan(read_redis(servers.redis()).hit_share)


def test_rows_are_tidy(url: str) -> None:
    rows = read_redis(url).rows()

    assert all(set(row) == {"ts", "name", "value", "unit"} for row in rows)
    assert {row["name"]: row["unit"] for row in rows}["memory_bytes"] == "bytes"
    assert len({row["name"] for row in rows}) == len(rows)


async def test_what_a_job_costs_is_the_difference_of_two_readings(url: str) -> None:
    async with RedisStorage(url, key_prefix="cost") as storage:
        await storage.enqueue(Job("warm_up"))
        before = read_redis(url, pings=1)
        await storage.enqueue_many(Job("work", ["x" * 200]) for _ in range(JOBS))
        cost = cost_per_job(before, read_redis(url, pings=1), JOBS)

    assert 0 < cost.scripts < 0.1
    assert cost.script_us > 0
    assert 250 < cost.received_bytes < 600
    assert cost.sent_bytes < 50


def test_a_cluster_is_read_as_the_sum_of_its_primaries(servers: LocalServers) -> None:
    reading = read_redis(servers.redis_cluster(3), pings=2)

    assert reading.memory_bytes > 3 * 500_000


def test_the_history_has_a_reading_each_interval(url: str) -> None:
    readings = list(latency_history(url, seconds=0.5, interval=0.1))

    assert 2 <= len(readings) <= 6
    assert [one.ts for one in readings] == sorted(one.ts for one in readings)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StorageUnavailable, match="check the url"):
        read_redis("redis://127.0.0.1:1/0")


def test_a_service_is_read_through_its_sentinels(servers: LocalServers, url: str, tmp_path: Path) -> None:
    port = urlsplit(url).port
    config = tmp_path / "sentinel.conf"
    config.write_text(f"bind 127.0.0.1\nsentinel monitor queue 127.0.0.1 {port} 1\n")
    sentinel = free_port()
    command = [find_redis(), str(config), "--port", str(sentinel), "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path) as process:
        try:
            reading = until_read(f"redis+sentinel://127.0.0.1:{sentinel}/queue")
        finally:
            process.kill()

    assert reading.memory_bytes > 0


def test_what_is_no_url_is_named() -> None:
    with pytest.raises(InvalidValue, match="expected url to be a Redis URL, got 'localhost'"):
        read_redis("localhost")


def test_bad_numbers_are_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match="expected pings to be at least 1"):
        read_redis(url, pings=0)
    with pytest.raises(InvalidValue, match="expected interval"):
        next(latency_history(url, interval=0))
    reading = read_redis(url)
    with pytest.raises(InvalidValue, match="expected jobs"):
        cost_per_job(reading, reading, 0)
