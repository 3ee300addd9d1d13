"""What a Redis server says of itself: round trips, hits and misses, commands, memory, and what a job costs it."""

from __future__ import annotations

from time import perf_counter, sleep, time
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict
from redis import RedisError

from qml_nb.errors import StorageUnavailable
from qml_nb.measure.units import unit_of
from qml_nb.storage import redis_clients
from qml_nb.validate import check_int, check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis


class RedisReading(Struct, frozen=True):
    """Counters since the server started, and the state at an instant; of a cluster, the sum over its primaries."""

    ts: float
    ping_min_ms: float
    ping_mean_ms: float
    ping_max_ms: float
    keyspace_hits: int
    keyspace_misses: int
    commands: int
    memory_bytes: int
    peak_memory_bytes: int
    received_bytes: int
    sent_bytes: int
    script_calls: int
    script_seconds: float
    cpu_seconds: float
    clients: int

    @property
    def hit_share(self) -> float:
        """Which share of the lookups found a key; NaN before the first lookup."""
        lookups = self.keyspace_hits + self.keyspace_misses
        return self.keyspace_hits / lookups if lookups else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a figure, as `pandas.DataFrame` takes them: instant, name, value, unit."""
        values = {**asdict(self), "hit_share": self.hit_share}
        del values["ts"]
        return [{"ts": self.ts, "name": name, "value": value, "unit": unit_of(name)} for name, value in values.items()]

    def cost_since(self, before: RedisReading, jobs: int) -> RedisCost:
        """See `cost_per_job`."""
        return RedisCost(
            (self.commands - before.commands) / jobs,
            (self.script_calls - before.script_calls) / jobs,
            (self.script_seconds - before.script_seconds) / jobs * 1e6,
            (self.cpu_seconds - before.cpu_seconds) / jobs * 1e6,
            (self.received_bytes - before.received_bytes) / jobs,
            (self.sent_bytes - before.sent_bytes) / jobs,
        )


class RedisCost(Struct, frozen=True):
    """What one job cost the server between two readings."""

    commands: float
    """Commands that clients sent, and those that scripts called."""
    scripts: float
    script_us: float
    cpu_us: float
    received_bytes: float
    sent_bytes: float


def read_redis(url: str, *, pings: int = 20) -> RedisReading:
    """Read a server, or all primaries of a cluster.

    Args:
        url: as for `open_storage`.
        pings: how many round trips are timed.

    Raises:
        StorageUnavailable: it can't be reached.
    """
    check_int("pings", pings, 1)
    try:
        nodes = redis_clients(url)
        trips = [trip for client in nodes for trip in _pings(client, pings)]
        infos = [client.info("everything") for client in nodes]
    except (RedisError, OSError) as error:
        raise StorageUnavailable(f"Redis can't be read: {error}; check the url") from error
    return _reading(infos, trips)


def latency_history(url: str, *, seconds: float = 10.0, interval: float = 1.0) -> Iterator[RedisReading]:
    """Yield a reading each `interval`, with as many round trips as fit in: what `redis-cli --latency-history` shows."""
    end = time() + check_seconds("seconds", seconds)
    check_seconds("interval", interval)
    while True:
        began = time()
        yield read_redis(url, pings=100)
        if time() + interval > end:
            return
        sleep(max(began + interval - time(), 0.0))


def _pings(client: Redis, many: int) -> list[float]:
    client.ping()  # connects
    trips = []
    for _ in range(many):
        began = perf_counter()
        client.ping()
        trips.append((perf_counter() - began) * 1_000)
    return trips


def _reading(infos: list[dict[str, Any]], trips: list[float]) -> RedisReading:
    def total(name: str) -> Any:
        return sum(info[name] for info in infos)

    scripts = [info.get(f"cmdstat_{name}", {}) for info in infos for name in ("eval", "evalsha", "fcall")]
    return RedisReading(
        ts=time(),
        ping_min_ms=min(trips),
        ping_mean_ms=sum(trips) / len(trips),
        ping_max_ms=max(trips),
        keyspace_hits=total("keyspace_hits"),
        keyspace_misses=total("keyspace_misses"),
        commands=total("total_commands_processed"),
        memory_bytes=total("used_memory"),
        peak_memory_bytes=total("used_memory_peak"),
        received_bytes=total("total_net_input_bytes"),
        sent_bytes=total("total_net_output_bytes"),
        script_calls=sum(each.get("calls", 0) for each in scripts),
        script_seconds=sum(each.get("usec", 0) for each in scripts) / 1e6,
        cpu_seconds=total("used_cpu_user") + total("used_cpu_sys"),
        clients=total("connected_clients"),
    )
