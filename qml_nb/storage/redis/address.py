"""What the URL of a Redis server says."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url

from qml_nb.config import RedisConfig, without_password
from qml_nb.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMS = (
    "redis://host:6379/0, rediss://…, redis+cluster://host:port,host:port, redis+sentinel://host:port/service "
    "or unix:///path"
)
_KINDS = {"": ("single", 6379), "cluster": ("cluster", 6379), "sentinel": ("sentinel", 26379)}
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_ESCAPE = "special characters of a password are written as %XX"
_PARAMETERS = {"db", "username", "password", "client_name", "health_check_interval", "socket_keepalive"}


class Address(Struct, frozen=True):
    """A server, a cluster by some of its nodes, a service by its sentinels, or the path of a socket."""

    kind: str
    """"single", "cluster" or "sentinel"."""
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    """redis-py's keyword arguments, hosts of a cluster or of sentinels apart."""

    def __str__(self) -> str:
        places = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "sentinel":
            return f"the Redis that the sentinels at {places} call {self.service!r}"
        return f"Redis at {places or self.options['unix_socket_path']}"

    def __repr__(self) -> str:
        return f"<{self}>"


def read_address(url: str) -> Address:
    """Read a URL.

    >>> read_address("redis+cluster://h:7000,[::1]").hosts
    (('h', 7000), ('::1', 6379))

    Raises:
        InvalidValue: it is no URL of a Redis server.
    """
    try:
        return _read(url)
    except ValueError as error:
        raise InvalidValue("url", "to be a Redis URL", without_password(url), f"{error}; write {_FORMS}") from None


def _read(url: str) -> Address:
    scheme, there, rest = url.partition("://")
    base, _, kind = scheme.lower().partition("+")
    if not there or base not in ("redis", "rediss", "unix") or kind not in _KINDS or (kind and base == "unix"):
        raise ValueError("there is no such scheme")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    if "@" in query or ("@" in path and base != "unix"):
        raise ValueError(_ESCAPE)
    login, _, hosts = netloc.rpartition("@")
    options = _login(login) | _parameters(query, RedisCluster if kind == "cluster" else Redis)
    if base == "rediss":
        options["ssl"] = True
    if base == "unix":
        return _socket(hosts, path, options)
    return _READERS[kind](hosts, path, options)


def _login(login: str) -> dict[str, Any]:
    username, _, password = login.partition(":")
    given = {"username": unquote(username), "password": unquote(password)}
    return {name: text for name, text in given.items() if text}


def _parameters(query: str, client: type) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(parse_url(f"redis://host?{query}"))
    del parameters["host"]
    known = _PARAMETERS | {name for name in signature(client).parameters if name.startswith("ssl_")}
    for name in parameters.keys() - known:
        if name in signature(RedisConfig).parameters:
            raise ValueError(f"give {name} beside it, as in open_storage(url, {name}=…)")
        raise ValueError(
            f"there is no parameter {name!r}, there are ssl_ca_certs and its like, {', '.join(sorted(_PARAMETERS))}"
        )
    for name in parameters.keys() & set(_FILES):
        if not Path(parameters[name]).exists():
            raise ValueError(f"{name} is no file on this machine")
    return parameters


def _socket(hosts: str, path: str, options: dict[str, Any]) -> Address:
    if hosts or not path:
        raise ValueError("a socket has a path from the root")
    return Address("single", (), "", options | {"unix_socket_path": "/" + unquote(path)})


def _single(hosts: str, path: str, options: dict[str, Any]) -> Address:
    if "," in hosts:
        raise ValueError("several hosts are for a cluster or for sentinels")
    host, port = _host(hosts or "localhost", "")
    return Address("single", ((host, port),), "", _database(path) | options | {"host": host, "port": port})


def _cluster(hosts: str, path: str, options: dict[str, Any]) -> Address:
    if (_database(path) | options).get("db"):
        raise ValueError("a cluster has database 0 only")
    return Address("cluster", _hosts(hosts, "cluster"), "", options)


def _sentinel(hosts: str, path: str, options: dict[str, Any]) -> Address:
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("the service that the sentinels watch is missing")
    return Address("sentinel", _hosts(hosts, "sentinel"), unquote(service), _database(database) | options)


_READERS: dict[str, Callable[[str, str, dict[str, Any]], Address]]
_READERS = {"": _single, "cluster": _cluster, "sentinel": _sentinel}


def _database(path: str) -> dict[str, Any]:
    if path and not (path.isascii() and path.isdecimal()):
        raise ValueError("the database is no number")
    return {"db": int(path)} if path else {}


def _hosts(hosts: str, kind: str) -> tuple[tuple[str, int], ...]:
    return tuple(_host(host, kind) for host in hosts.split(","))


def _host(text: str, kind: str) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(_KINDS[kind][1])
    if not host:
        raise ValueError(f"a host is missing; {_ESCAPE}")
    if (":" in host and host[0] + host[-1] != "[]") or not (number.isascii() and number.isdecimal()):
        raise ValueError(f"a port is no number; {_ESCAPE}")
    if not 1 <= int(number) <= 65_535:
        raise ValueError("a port is not from 1 to 65535")
    return host.strip("[]"), int(number)
