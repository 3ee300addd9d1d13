"""What runs around every task of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from qml_nb.errors import NextUsedTwice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from qml_nb.job import Job
    from qml_nb.server.context import JobContext

Next: TypeAlias = "Callable[[], Awaitable[Any]]"
Middleware: TypeAlias = "Callable[[Job, JobContext, Next], Awaitable[Any]]"


class _Next:
    """The rest of a chain, from one middleware inwards to the task; it runs once."""

    __slots__ = ("_call", "_chain", "_context", "_used")

    def __init__(self, chain: Sequence[Middleware], context: JobContext, call: Next) -> None:
        self._chain, self._context, self._call = chain, context, call
        self._used = False

    def __call__(self) -> Awaitable[Any]:
        if self._used:
            raise NextUsedTwice
        self._used = True
        return through(self._chain, self._context, self._call)


def through(chain: Sequence[Middleware], context: JobContext, call: Next) -> Awaitable[Any]:
    """Return what the first of the chain makes of the others, and they of the call of the task."""
    if not chain:
        return call()
    return chain[0](context.job, context, _Next(chain[1:], context, call))
