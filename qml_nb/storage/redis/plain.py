"""Clients without `await`, for who looks at a server from outside the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis, RedisCluster, Sentinel
from redis.cluster import ClusterNode

from qml_nb.storage.redis.address import read_address

if TYPE_CHECKING:
    from qml_nb.storage.redis.address import Address


def redis_clients(url: str) -> list[Redis]:
    """Return a client of the server that a URL names, of each primary of a cluster, of the primary of a service.

    Raises:
        InvalidValue: it is no URL of a Redis server.
        redis.RedisError, OSError: a cluster can't be asked for its primaries.
    """
    address = read_address(url)
    if address.kind == "cluster":
        return _primaries(address)
    if address.kind == "sentinel":
        sentinel: Any = Sentinel  # redis-py leaves it untyped
        return [sentinel(address.hosts).master_for(address.service, **address.options)]
    return [Redis(**address.options)]


def _primaries(address: Address) -> list[Redis]:
    node: Any = ClusterNode
    nodes = [node(host, port) for host, port in address.hosts]
    cluster: Any = RedisCluster(startup_nodes=nodes, **address.options)
    return [cluster.get_redis_connection(primary) for primary in cluster.get_primaries()]
