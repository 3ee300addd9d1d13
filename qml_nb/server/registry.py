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

    from qml_nb.server.hooks import Hook
    from qml_nb.server.middleware import Middleware

    F = TypeVar("F", bound=Callable[..., Any])
    M = TypeVar("M", bound=Middleware)
    H = TypeVar("H", bound=Hook)


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
        self.chain: list[Middleware] = []
        """What runs around every task, the outermost first."""
        self.hooks: list[Hook] = []
        """What servers tell of the moves of jobs."""

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
        """Register a function, async or not, under a name.

        With `process`, a plain one that computes: it runs in a process, where it has a processor to itself, one call at
        a time, and which is killed when its job is cancelled, or has no time left. The process gets a copy of it with
        all that it needs, or imports it if it can. Policies know what it raises by name; a middleware sees a
        `RemoteError`. What it keeps in global variables is its process's own, until the task is registered anew.
        """
        if not callable(function):
            raise InvalidValue("function", "to be callable", function)
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidValue("retry", "to be a RetryPolicy", retry, "write RetryPolicy.exponential()")
        is_async = _is_async(function)
        name = check_name("name", name)
        if check_bool("process", process) and is_async:
            raise InvalidValue("process", "to be False for an async task", process, "a process runs plain functions")
        self.tasks[name] = Task(name, function, is_async, retry, process)

    def middleware(self, function: M) -> M:
        """Run the async function below around every task, from the next job on: `async def m(job, ctx, call_next)`.

        The one registered first is the outermost. `await call_next()` gives what the task returns, and raises what it
        raises; what the middleware returns is the result. It may catch errors, change the result, or return without a
        call of `call_next`, which works once: then the task does not run. `ctx` is the job's `JobContext`. A middleware
        that is defined anew, as by a notebook cell that runs again, takes the place of the one with its name.

        >>> from time import perf_counter
        >>> registry = WorkerRegistry()
        >>> @registry.middleware
        ... async def timed(job, ctx, call_next):
        ...     began = perf_counter()
        ...     try:
        ...         return await call_next()
        ...     finally:
        ...         ctx.logger.info("%s took %.3f s", job.method, perf_counter() - began)

        Raises:
            InvalidValue: the function is not async.
        """
        if not callable(function) or not _is_async(function):
            raise InvalidValue(
                "middleware", "to be an async function", function, "write async def m(job, ctx, call_next)"
            )
        _put(self.chain, function)
        return function

    def on_state_change(self, function: H) -> H:
        """Call the function below, async or not, with each move of a job that a server makes: `hook(job, old, new)`.

        These are enqueued to processing, when it was claimed, and from processing to whatever the run came to, once
        that is stored. Not told are moves by callers, and by sweeps: due, lost and cancelled jobs. `job` is as it was
        claimed. Hooks are called one after the other in the server's event loop, in the order of the moves and soon
        after them; a plain one must return at once. One that raises is logged. Those that fall 10,000 moves behind
        miss the oldest, which is logged. Defined anew, it takes the place of the one with its name.

        Raises:
            InvalidValue: it is not callable.
        """
        if not callable(function):
            raise InvalidValue("hook", "to be callable", function, "write def hook(job, old, new)")
        _put(self.hooks, function)
        return function

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


def _is_async(function: Callable[..., Any]) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def _put(functions: list[Any], function: object) -> None:
    """Append a function, or put it in the place of the one with its name, if that is one that a module or a cell has."""
    name = _global_name(function)
    place = next((at for at, there in enumerate(functions) if name and _global_name(there) == name), len(functions))
    functions[place : place + 1] = [function]


def _global_name(function: object) -> tuple[str, str] | None:
    name = getattr(function, "__qualname__", "<object>")
    return None if "<" in name else (getattr(function, "__module__", ""), name)
