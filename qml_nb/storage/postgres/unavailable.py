"""What asyncpg raises, said in the errors of this library: what is wrong, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from qml_nb.config import without_password
from qml_nb.errors import StorageUnavailable

if TYPE_CHECKING:
    from qml_nb.config import PostgresConfig

CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The server undid the statement in favour of another: it may be sent again at once."""
ANSWERS = (*CONFLICTS, asyncpg.UniqueViolationError)
"""What is no fault, but an answer that whoever sent the statement reckons with."""
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


class ConnectionLost(StorageUnavailable):
    """The connection broke: what was sent last may have been done, or not. It is worth another try at once."""


def unavailable(error: BaseException, config: PostgresConfig, *, opening: bool) -> StorageUnavailable:
    """Return what to raise for an error of asyncpg or of the system; while opening nothing was sent yet."""
    name, why = without_password(config.database_url), str(error).rstrip(".") or type(error).__name__
    if isinstance(error, TimeoutError):
        if opening:
            return StorageUnavailable(
                f"{name} took no connection within {config.connect_timeout:g} s (connect_timeout); {_START}"
            )
        late = f"{name} did not answer within {config.command_timeout:g} s (command_timeout)"
        return StorageUnavailable(f"{late}; what was sent may still be done: {_AGAIN}")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StorageUnavailable(f"{name} refuses the login: {why}; check user and password")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StorageUnavailable(f"{name} has no such database: {why}; create it, or check the URL")
    if isinstance(error, (asyncpg.ReadOnlySQLTransactionError, asyncpg.DiskFullError)):
        return StorageUnavailable(f"{name} can't write: {why}; nothing of this call was stored")
    if isinstance(error, _ENDED):
        if opening:
            return ConnectionLost(f"no connection to {name}: {why}; {_START}")
        return ConnectionLost(
            f"the connection to {name} is lost: {why}; what was sent last may have been done: {_AGAIN}"
        )
    return StorageUnavailable(f"{name} refuses: {why}")
