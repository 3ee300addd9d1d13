"""Which server a `RedisConfig` means, and how redis-py is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qml_nb.config import RedisConfig

_FORMS = "redis://host:6379/0, rediss://…, redis+cluster://host:port,host:port, redis+sentinel://host:port/service or unix:///path"
_PORTS = {"cluster": 6379, "sentinel": 26379}


class Target(Struct, frozen=True):
    """A server, a cluster by some of its nodes, or a service by its sentinels."""

    kind: str
    """"single", "cluster" or "sentinel"."""
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    """redis-py's keyword arguments, hosts apart."""

    @classmethod
    def of(cls, config: RedisConfig) -> Target:
        """Read the URL; options beside it count more than what it says.

        Raises:
            InvalidValue: it is no URL of a Redis server.
        """
        try:
            target = _parsed(config.url)
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidValue("url", "to be a Redis URL", config.url, f"write {_FORMS} ({error})") from None
        target.options.update(_given(config))
        return target

    def single(self, **more: Any) -> Redis:
        """Return a client of one server."""
        return Redis(**{**self.options, **more})

    def cluster(self, **more: Any) -> RedisCluster:
        """Return a client of the cluster."""
        nodes = [ClusterNode(host, port) for host, port in self.hosts]
        return RedisCluster(startup_nodes=nodes, **{**self.options, **more})

    def primary(self, **more: Any) -> Redis:
        """Return a client of whichever server the sentinels call the primary."""
        timeouts = {name: self.options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        sentinel: Any = Sentinel  # redis-py leaves it untyped
        client: Redis = sentinel(self.hosts, sentinel_kwargs=timeouts).master_for(
            self.service, **{**self.options, **more}
        )
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


def _parsed(url: str) -> Target:
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if not kind:
        return Target("single", (), "", _options(parse_url(url)))
    if kind not in _PORTS:
        raise ValueError(f"no such scheme {scheme!r}")
    netloc, _, path = rest.partition("/")
    login, at, hosts = netloc.rpartition("@")
    service, _, database = path.partition("?")[0].partition("/")
    query = path[path.index("?") :] if "?" in path else ""
    if kind == "sentinel" and not service:
        raise ValueError("the service that the sentinels watch is missing")
    options = _options(parse_url(f"{base}://{login}{at}host/{database if kind == 'sentinel' else ''}{query}"))
    options.pop("host")
    return Target(kind, tuple(_host(host, _PORTS[kind]) for host in hosts.split(",")), service, options)


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not host:
        raise ValueError("a host is missing")
    return host.strip("[]"), int(number)


def _options(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `parse_url` read as arguments of a client."""
    options = dict(parsed)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    return options
