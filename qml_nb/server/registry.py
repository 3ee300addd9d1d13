"""The tasks that a server can run, by name."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import Struct

from qml_nb.errors import InvalidValue, UnknownMethod
from qml_nb.retry import RetryPolicy
from qml_nb.validate import check_bool, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    F = TypeVar("F", bound=Callable[..., Any])


class Task(Struct, frozen=True):
    """A registered function: `run` is called with the job's arguments, on the loop if it is async, else in a thread."""

    name: str
    run: Callable[..., Any]
    is_async: bool
    retry: RetryPolicy | None = None
    """When it runs again after an error; None leaves it to the server."""
    process: bool = False
    """Whether it runs in a process of its own kind, where it can use a processor for itself, and be killed."""


class WorkerRegistry:
    """Maps method names to functions.

    >>> registry = WorkerRegistry()
    >>> @registry.task("add")
    ... async def add(a: int, b: int) -> int:
    ...     return a + b
    >>> @registry.task
    ... def resize(path: str) -> None: ...
    >>> registry
    WorkerRegistry('add', 'resize')
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}

    @overload
    def task(self, name: F, /) -> F: ...
    @overload
    def task(
        self, name: str | None = None, /, *, retry: RetryPolicy | None = None, process: bool = False
    ) -> Callable[[F], F]: ...
    def task(self, name: Any = None, /, *, retry: RetryPolicy | None = None, process: bool = False) -> Any:
        """Register the function below, under `name` or its own name. A later one of that name takes its place.

        That is what re-running a notebook cell needs: running servers use the new function from the next job on.
        """

        def decorate(function: F) -> F:
            own_name = getattr(function, "__name__", "")  # a partial has none
            self.register(own_name if name is None or callable(name) else name, function, retry=retry, process=process)
            return function

        return decorate(name) if callable(name) else decorate

    def register(
        self, name: str, function: Callable[..., Any], *, retry: RetryPolicy | None = None, process: bool = False
    ) -> None:
        """Register a function, async or not, under a name. With `process`, a plain one that uses its processor."""
        if not callable(function):
            raise InvalidValue("function", "to be callable", function)
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidValue("retry", "to be a RetryPolicy", retry, "write RetryPolicy.exponential()")
        is_async = iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)
        name = check_name("name", name)
        if check_bool("process", process) and is_async:
            raise InvalidValue("process", "to be False for an async task", process, "a process runs plain functions")
        self.tasks[name] = Task(name, function, is_async, retry, process)

    def find(self, name: str) -> Task:
        """Return the task of that name.

        Raises:
            UnknownMethod: there is none.
        """
        task = self.tasks.get(name)
        if task is None:
            raise UnknownMethod(name, sorted(self.tasks))
        return task

    def __contains__(self, name: object) -> bool:
        return name in self.tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        return f"WorkerRegistry({', '.join(map(repr, sorted(self.tasks)))})"
