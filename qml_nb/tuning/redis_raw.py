"""What Redis itself can do: the least scripts that a queue could be, packed before, with four calls under way."""

from __future__ import annotations

import shutil
import subprocess
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hiredis import pack_command
from redis import Redis

from qml_nb.job import Job
from qml_nb.storage import redis_clients

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 100
_UNDER_WAY = 4
_STORE = """redis.call('HSET', KEYS[1], unpack(ARGV))
local ids = {} for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
return redis.call('RPUSH', KEYS[2], unpack(ids))"""
_FETCH = """local ids = redis.call('LPOP', KEYS[2], ARGV[1])
local held = {} for i, id in ipairs(ids) do held[2 * i - 1], held[2 * i] = id, ARGV[2] end
redis.call('HSET', KEYS[3], unpack(held))
return redis.call('HMGET', KEYS[1], unpack(ids))"""
_SETTLE = """local ids = {} for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
redis.call('HDEL', KEYS[3], unpack(ids))
redis.call('HSET', KEYS[1], unpack(ARGV))
return redis.call('RPUSH', KEYS[4], unpack(ids))"""


def raw_rates(url: str, jobs: int) -> tuple[float, float]:
    """Return jobs a second of storing alone, and of the whole cycle: store, fetch, settle."""
    with Redis.from_url(url) as client:
        keys = [f"{{raw}}:{name}" for name in ("jobs", "ready", "held", "done")]
        client.delete(*keys)
        store, fetch, settle = (client.script_load(text) for text in (_STORE, _FETCH, _SETTLE))
        bodies = [_body(number) for number in range(jobs)]
        batches = [bodies[first : first + BATCH] for first in range(0, jobs, BATCH)]
        stored, fetched, settled = (
            _send(client, [pack_command(("EVALSHA", sha, 4, *keys, *arguments)) for arguments in calls])
            for sha, calls in (
                (store, [_flat(batch) for batch in batches]),
                (fetch, [(BATCH, "worker")] * len(batches)),
                (settle, [_flat(batch) for batch in batches]),
            )
        )
        client.delete(*keys)
    return jobs / stored, jobs / (stored + fetched + settled)


def _body(number: int) -> tuple[bytes, bytes]:
    job = Job("noop", [number])
    return bytes.fromhex(job.id.replace("-", "")), b"%s %s %s" % (job.method.encode(), job.args_json, b"0" * 60)


def _flat(batch: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    return [part for pair in batch for part in pair]


def _send(client: Redis, calls: Sequence[bytes]) -> float:
    """Send packed commands, so many under way, and return the seconds that they took."""
    connection: Any = client.connection_pool.get_connection()
    began = perf_counter()
    for number, call in enumerate(calls):
        connection.send_packed_command([call])
        if number >= _UNDER_WAY:
            connection.read_response()
    for _ in range(min(_UNDER_WAY, len(calls))):
        connection.read_response()
    took = perf_counter() - began
    client.connection_pool.release(connection)
    return took


def empty(url: str) -> None:
    """Remove all data of a server, or of every primary of a cluster, and wait until that is done."""
    for client in redis_clients(url):
        client.flushall(asynchronous=False)


def benchmark_rates(port: int) -> dict[str, float]:
    """Return what redis-benchmark measures of single commands, 50 clients; nothing if it is not installed."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return {}
    rates: dict[str, float] = {}
    for pipelined in (1, 100):
        command = (program, "-p", str(port), "-c", "50", "-n", "100000", "-P", str(pipelined), "-r", "100000", "--csv")
        done = subprocess.run((*command, "-t", "lpush"), capture_output=True, text=True, check=True)
        rate = done.stdout.splitlines()[-1].split(",")[1].strip('"')
        rates[f"redis-benchmark, LPUSH, {pipelined} a round trip"] = float(rate)
    return rates
