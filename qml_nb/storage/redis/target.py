"""Which server a `RedisConfig` means, and how redis-py is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from qml_nb.errors import InvalidValue
from qml_nb.storage.redis.address import Address, read_address
from qml_nb.storage.redis.connections import packing

if TYPE_CHECKING:
    from qml_nb.config import RedisConfig


class Target(Struct, frozen=True):
    """How to reach what a URL and the options beside it name."""

    address: Address
    options: dict[str, Any]
    """redis-py's keyword arguments, hosts of a cluster or of sentinels apart."""

    @classmethod
    def of(cls, config: RedisConfig) -> Target:
        """Read the URL; options beside it count more than what it says.

        Raises:
            InvalidValue: it is no URL of a Redis server, or an option does not go with it.
        """
        address = read_address(config.url)
        if address.kind == "cluster" and config.database:
            raise InvalidValue("database", "to be 0 or None", config.database, "a cluster has no other")
        if config.tls and "unix_socket_path" in address.options:
            raise InvalidValue(
                "tls", "to be False or None", config.tls, "nothing encrypts what goes over a socket file"
            )
        return cls(address, address.options | _given(config))

    @property
    def kind(self) -> str:
        """What the URL names: "single", "cluster" or "sentinel"."""
        return self.address.kind

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self.options.get("db", 0))

    def __repr__(self) -> str:
        return f"<{self.address}>"

    def single(self, **more: Any) -> Redis:
        """Return a client of one server."""
        return _packed(Redis(**{**self.options, **more}))

    def cluster(self, **more: Any) -> RedisCluster:
        """Return a client of the cluster."""
        nodes = [ClusterNode(host, port) for host, port in self.address.hosts]
        # No reinitialisation after some MOVED: it closes connections under the calls of others, and our one slot is known.
        cluster = RedisCluster(startup_nodes=nodes, reinitialize_steps=0, **{**self.options, **more})
        of_nodes = cluster.connection_kwargs
        of_nodes["connection_class"] = packing(of_nodes["connection_class"])
        return cluster

    def primary(self, **more: Any) -> Redis:
        """Return a client of whichever server the sentinels call the primary."""
        shared = {
            name: self.options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")
        }
        sentinel: Any = Sentinel  # redis-py leaves it untyped
        client: Redis = sentinel(self.address.hosts, sentinel_kwargs=shared).master_for(
            self.address.service, **{**self.options, **more}
        )
        return _packed(client)


async def disconnect(client: Any) -> None:
    """Close a client's connections, and those to the sentinels that it asked."""
    asked = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for each in (client, *(asked.sentinels if asked else ())):
        await each.aclose()


def _packed(client: Redis) -> Redis:
    pool: Any = client.connection_pool
    pool.connection_class = packing(pool.connection_class)
    return client


def _given(config: RedisConfig) -> dict[str, Any]:
    given = {"db": config.database, "username": config.username, "password": config.password, "ssl": config.tls}
    return {name: value for name, value in given.items() if value is not None} | {
        "socket_timeout": config.command_timeout,
        "socket_connect_timeout": config.connection_timeout,
        "max_connections": config.pool_size,
        "retry": Retry(NoBackoff(), 0),  # what may be sent again, and what may not, the storage knows
        "protocol": 2,
    }
