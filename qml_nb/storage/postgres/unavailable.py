"""What asyncpg raises, said in the errors of this library: what is wrong, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from qml_nb.config import without_password
from qml_nb.errors import StorageUnavailable
from qml_nb.storage.links import ConnectionLost, NotConnected

if TYPE_CHECKING:
    from qml_nb.config import PostgresConfig

_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_ENDED = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)
FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)

_AGAIN = "jobs sent again under the same ids are stored once"
_START = "check the URL, or start a server with LocalServers().postgres()"
_SAID: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((asyncpg.InvalidAuthorizationSpecificationError,), "{} refuses the login: {}; check user and password"),
    ((asyncpg.InvalidCatalogNameError,), "{} has no such database: {}; create it, or check the URL"),
    (
        (asyncpg.ReadOnlySQLTransactionError, asyncpg.DiskFullError),
        "{} can't write: {}; nothing of this call was stored",
    ),
)
_MIXED_UP = (
    "{} lost or mixed up a prepared statement: {}; behind a pooler in transaction mode set statement_cache_size=0"
)
_PREPARED = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)


def is_conflict(error: BaseException) -> bool:
    """Whether the server undid the statement in favour of another, so that it may be sent again at once.

    Another one may also have replaced a function between the time at which its name was looked up and that of its call.
    """
    if isinstance(error, asyncpg.InternalServerError):
        return str(error).startswith("cache lookup failed for function")  # a text that is not translated
    return isinstance(error, _CONFLICTS)


def unavailable(error: BaseException, config: PostgresConfig, *, opening: bool, url: str = "") -> StorageUnavailable:
    """Return what to raise for an error of asyncpg or of the system; while opening nothing was sent yet."""
    name, why = without_password(url or config.database_url), _why(error)
    if isinstance(error, TimeoutError):
        if opening:
            return StorageUnavailable(
                f"{name} took no connection within {config.connect_timeout:g} s (connect_timeout); {_START}"
            )
        late = f"{name} did not answer within {config.command_timeout:g} s (command_timeout)"
        return StorageUnavailable(f"{late}; what was sent may still be done: {_AGAIN}")
    for kinds, text in _SAID:
        if isinstance(error, kinds):
            return StorageUnavailable(text.format(name, why))
    if _is_mixed_up(error):
        return StorageUnavailable(_MIXED_UP.format(name, error.args[0]))
    if isinstance(error, _ENDED) and (opening or not isinstance(error, ValueError)):  # that is what it can't encode
        if opening:
            return NotConnected(f"no connection to {name}: {why}; {_START}")
        return ConnectionLost(
            f"the connection to {name} is lost: {why}; what was sent last may have been done: {_AGAIN}"
        )
    return StorageUnavailable(f"{name} refuses: {why}")


def _is_mixed_up(error: BaseException) -> bool:
    """Whether a statement was prepared on another connection of the server than the one that is to run it."""
    if isinstance(error, asyncpg.ProtocolViolationError):  # there it is another one of that name
        return "prepared statement" in str(error)
    return isinstance(error, _PREPARED)


def all_in_use(config: PostgresConfig) -> StorageUnavailable:
    """Return what to raise where the server is there, and no connection was free in time."""
    name, limit = without_password(config.database_url), config.max_connections
    return StorageUnavailable(
        f"all max_connections={limit} to {name} were in use for {config.connect_timeout:g} s (connect_timeout); raise one of the two"
    )


def _why(error: BaseException) -> str:
    """Return its message in one line: the server's hints and details would stand below it."""
    text = str(error.args[0] if isinstance(error, asyncpg.PostgresError) and error.args else error)
    return text.rstrip(".") or type(error).__name__
