"""What redis-py raises, said in the errors of this library: what is wrong, and what to do."""

from __future__ import annotations

from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qml_nb.errors import StorageUnavailable
from qml_nb.storage.links import ConnectionLost, NotConnected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qml_nb.config import RedisConfig
    from qml_nb.storage.redis.target import Target

LOST = (RedisConnectionError, RedisClusterException, ClusterError, AskError, TryAgainError, OSError)  # Moved is an Ask
LATE = (RedisTimeoutError, TimeoutError)
FAULTS = (RedisError, RedisClusterException, OSError)

_AGAIN = "jobs sent again under the same ids are stored once"
_STARTS = {"single": ", or start a server with LocalServers().redis()", "sentinel": ""}
_STARTS["cluster"] = ", or start a cluster with LocalServers().redis_cluster()"


def unavailable(error: BaseException, target: Target, config: RedisConfig, *, opening: bool) -> StorageUnavailable:
    """Return what to raise for an error of redis-py or of the system; while opening nothing was sent yet."""
    error, name = _root(error), target.address
    if isinstance(error, AuthenticationError):
        return StorageUnavailable(f"{name} refuses the login: {_text(error)}; check username and password")
    if isinstance(error, LATE):
        return StorageUnavailable(_late(error, target, config, opening))
    unfit = _unfit(error, target)
    if unfit:
        return StorageUnavailable(f"{name} {unfit}")
    if isinstance(error, LOST):
        return (NotConnected if opening else ConnectionLost)(_lost(error, target, opening))
    return StorageUnavailable(f"{name} refuses: {_text(error)}")


def _root(error: BaseException) -> BaseException:
    """Return why no node of a cluster could be asked, if that is what the error tells."""
    while isinstance(error, RedisClusterException) and error.__cause__:
        error = error.__cause__
    return error


def _late(error: BaseException, target: Target, config: RedisConfig, opening: bool) -> str:
    if "connecting" in str(error):
        waited, option = config.connection_timeout, "connection_timeout"
        return f"{target.address} took no connection within {waited:g} s ({option}); {_advice(target)}"
    late = f"{target.address} did not answer within {config.command_timeout:g} s (command_timeout)"
    return f"{late}; {_advice(target)}" if opening else f"{late}; what was sent may still be done: {_AGAIN}"


def _unfit(error: BaseException, target: Target) -> str | None:
    """Return what is wrong if another try, however late, would end the same."""
    if any(isinstance(each, SSLCertVerificationError) for each in _chain(error)):
        return f"has a certificate that is not trusted: {_text(error)}; name its CA, as in ?ssl_ca_certs=/path/ca.pem"
    if "Cluster mode is not enabled" in str(error):
        return "is no cluster; write redis:// instead of redis+cluster://"
    if isinstance(error, MovedError) and target.kind == "single":
        return "is one node of a cluster; write redis+cluster:// instead of redis://"
    return None


def _lost(error: BaseException, target: Target, opening: bool) -> str:
    name, why = target.address, _text(error)
    if isinstance(error, MasterNotFoundError):  # whose text shows all of redis-py's objects
        return f"{name} is not found: no sentinel answers, or none knows a primary of that name; check the url"
    if opening:
        return f"no connection to {name}: {why}; {_advice(target)}"
    return f"the connection to {name} is lost or can't be made: {why}; what was sent last may have been done: {_AGAIN}"


def _advice(target: Target) -> str:
    tls = ", and that TLS is spoken there" if target.options.get("ssl") else ""
    return f"check the url{tls}{_STARTS[target.kind]}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    return str(error).rstrip(".")
