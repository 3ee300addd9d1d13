"""What a server away from its pool is made of. It goes by cloudpickle, from the process of the pool and nowhere else."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qml_nb.errors import InvalidValue, StorageClosed
from qml_nb.server.copying import packed, unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qml_nb.config import ServerConfig
    from qml_nb.retry import RetryPolicy
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage

_SHARED = "use redis://… or postgresql://…, which LocalServers() starts in a notebook too, or where='thread'"


@dataclass(frozen=True, slots=True)
class Plan:
    """What each server of a pool is made of."""

    storage_kind: Callable[[Any], Storage]
    storage_config: Any
    registry: WorkerRegistry
    config: ServerConfig
    retry: RetryPolicy | None
    initializer: Callable[[], object] | None

    def storage(self) -> Storage:
        """Make the storage anew."""
        return self.storage_kind(self.storage_config)

    def packed(self) -> bytes:
        """Return it as bytes for `copying.loads`.

        Raises:
            InvalidValue: a task, a middleware or a hook can't be copied to another process.
        """
        plan = replace(self, registry=copied(self.registry))
        try:
            return packed(plan)
        except Exception as error:
            raise _culprit(plan, error) from error


def plan_of(
    storage: Storage,
    registry: WorkerRegistry,
    config: ServerConfig,
    retry: RetryPolicy | None,
    initializer: Callable[[], object] | None,
    where: str,
) -> Plan:
    """Return the plan of servers on a storage like this one.

    Raises:
        InvalidValue: other processes can't share the storage.
        StorageClosed: nobody can use it.
    """
    if storage.closed:
        raise StorageClosed
    if not storage.backend.round_trip:
        why = f"each process would have a memory of its own; {_SHARED}"
        raise InvalidValue("storage", f"to be on a server with where={where!r}", storage, why)
    storage_config = getattr(storage.backend, "config", None)
    if storage_config is None:
        raise InvalidValue("storage", "to be made of a config", storage, "give its URL")
    return Plan(type(storage), storage_config, registry, config, retry, initializer)


def copied(registry: WorkerRegistry) -> WorkerRegistry:
    """Return a registry with what is in this one, which another thread may be changing."""
    new = copy(registry)
    for name, value in vars(registry).items():
        setattr(new, name, copy(value))
    return new


def _culprit(plan: Plan, error: Exception) -> InvalidValue:
    """Find who can't be copied, to name it."""
    for name, function in (*_functions(plan.registry), ("initializer", plan.initializer)):
        try:
            packed(function)
        except Exception as its_error:
            return unfit(name, function, its_error)
    return unfit("registry", plan.registry, error)


def _functions(registry: WorkerRegistry) -> Iterator[tuple[str, object]]:
    for name, task in registry.tasks.items():
        yield f"task {name!r}", task.run
    for name, values in vars(registry).items():
        if isinstance(values, list):
            for index, function in enumerate(values):
                yield f"registry.{name}[{index}]", function
