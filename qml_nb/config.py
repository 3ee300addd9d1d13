"""The options of storages and servers: frozen, keyword-only, checked when they are made. Durations are seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Self

from qml_nb.errors import InvalidValue, UnknownOption
from qml_nb.validate import check_bool, check_int, check_name, check_names, check_rate, check_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence


_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_HOST = r"(\[[^][@/?#]+\]|[^][:@/?#,]*)(:\d+)?"
_POSTGRES_URL = re.compile(rf"postgres(ql)?://([^@/?#]*@)?{_HOST}(,{_HOST})*(/[^?#]*)?(\?([^=&#]+=[^&#]*(&|$))*)?")
"""As asyncpg reads it. What it can't read would end in an error of its own, with parts of the password in it."""


class Options:
    """What every set of options shares: an unknown name is answered with the one that was meant."""

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse unknown names before the fields are set."""
        known = signature(cls.__init__).parameters.keys() - {"self"}
        for name in options.keys() - known:
            raise UnknownOption(cls.__name__, name, sorted(known))
        return super().__new__(cls)

    @classmethod
    def of(cls, config: Self | None, options: dict[str, Any]) -> Self:
        """Return `config`, or one made of `options`; both at once would leave open which counts."""
        if config is None:
            return cls(**options)
        if not isinstance(config, cls):
            raise InvalidValue("config", f"to be a {cls.__name__}", config, f"write {cls.__name__}(…)")
        if options:
            name = min(options)
            raise InvalidValue(
                name, f"to stand in the {cls.__name__}", options[name], "give a config or options, not both"
            )
        return config

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


class Retention(Options):
    """How much a storage takes in, and how long it keeps what is finished."""

    __slots__ = ()

    def _check_retention(self) -> None:
        for name, least in (("max_jobs", 1), ("max_finished_jobs", 0)):
            value = getattr(self, name)
            if value is not None:
                check_int(name, value, least, 2**62)
        for name in ("completed_job_ttl", "failed_job_ttl"):
            value = getattr(self, name)
            if value is not None:
                self._set(**{name: check_seconds(name, value)})


@dataclass(frozen=True, slots=True)
class MemoryConfig(Retention):
    """Options of the memory storage.

    Args:
        max_jobs: the most unfinished jobs at a time, else `CapacityExceeded`; None for no bound. A job takes about
            400 bytes plus its arguments.
        max_finished_jobs: the most finished jobs kept; beyond it the oldest go first. None for no bound.
        completed_job_ttl: seconds that succeeded and deleted jobs are kept; None for ever.
        failed_job_ttl: seconds that failed jobs are kept; None for ever.
    """

    _: KW_ONLY
    max_jobs: int | None = 1_000_000
    max_finished_jobs: int | None = 100_000
    completed_job_ttl: float | None = 86_400.0
    failed_job_ttl: float | None = 604_800.0

    def __post_init__(self) -> None:
        self._check_retention()


@dataclass(frozen=True, slots=True, repr=False)
class RedisConfig(Retention):
    """Options of the Redis storage.

    Args:
        url: `redis://host:6379/0`; `rediss://` for TLS; `redis+cluster://host:port,host:port` for a cluster;
            `redis+sentinel://host:26379,host:26379/service` asks sentinels who is the primary; `unix:///path`.
            redis-py's own URL parameters are understood, as in `?ssl_ca_certs=/path/ca.pem`.
        pool_size: the most connections that commands use at a time, in each event loop. Who waits for work holds one
            more.
        connection_timeout: seconds to connect.
        command_timeout: seconds that the server gets to answer; beyond it `StorageUnavailable`.
        key_prefix: what all keys start with, as `{qml}:`; two prefixes share a server and nothing else.
        database: the number of the database; None for the URL's, else 0.
        username, password: for ACLs; None for the URL's.
        tls: whether to encrypt; None for what the URL says.
        max_jobs: the most unfinished jobs at a time, else `CapacityExceeded`; None for no bound.
        max_finished_jobs: the most finished jobs kept; beyond it the oldest go first. None for no bound.
        completed_job_ttl: seconds that succeeded and deleted jobs are kept; None for ever.
        failed_job_ttl: seconds that failed jobs are kept; None for ever.
    """

    url: str = "redis://127.0.0.1:6379/0"
    _: KW_ONLY
    pool_size: int = 10
    connection_timeout: float = 5.0
    command_timeout: float = 5.0
    key_prefix: str = "qml"
    database: int | None = None
    username: str | None = None
    password: str | None = None
    tls: bool | None = None
    max_jobs: int | None = None
    max_finished_jobs: int | None = 100_000
    completed_job_ttl: float | None = 86_400.0
    failed_job_ttl: float | None = 604_800.0

    def __post_init__(self) -> None:
        self._check_retention()
        check_int("pool_size", self.pool_size, 1, 10_000)
        self._check_server()
        for name in ("connection_timeout", "command_timeout"):
            self._set(**{name: check_seconds(name, getattr(self, name))})
        if set("{}") & set(check_name("key_prefix", self.key_prefix)):
            raise InvalidValue("key_prefix", "to have no braces", self.key_prefix, "they are put around it")
        if self.database is not None:
            check_int("database", self.database, 0)
        if self.tls is not None:
            check_bool("tls", self.tls)

    def _check_server(self) -> None:
        if not isinstance(self.url, str):
            raise InvalidValue("url", "to be text", self.url, "write redis://host:6379/0")
        if self.username is not None:
            check_name("username", self.username)
        if self.password is not None and not isinstance(self.password, str):
            raise InvalidValue("password", "to be text", type(self.password).__name__, "name it with a str")

    def __repr__(self) -> str:
        """Show what differs from the default, and no password."""
        return _shown(self)


@dataclass(frozen=True, slots=True, repr=False)
class PostgresConfig(Retention):
    """Options of the PostgreSQL storage.

    Args:
        database_url: `postgresql://user:password@host:5432/database`, as libpq and asyncpg read it.
        max_connections: the most connections that statements use at a time, in each event loop. Who waits for work or
            hears messages holds one more.
        min_connections: how many of them stay open.
        connect_timeout: seconds to connect, and to wait for a connection that is in use.
        command_timeout: seconds that the server gets to answer; beyond it `StorageUnavailable`.
        idle_timeout: seconds after which an unused connection is closed; 0 for never.
        max_lifetime: seconds after which a connection is closed and made anew.
        schema_name, table_name: where everything lies: the live table has this name, all else begins with it. Two pairs
            share a database and nothing else; in one schema, `x` and `x_done` would meet.
        auto_migrate: whether to make or update tables and functions when they are not of this version.
        require_ssl: whether to refuse to talk without encryption.
        listen_dsn: the URL for LISTEN where `database_url` leads to a pooler; None for the same. Behind PgBouncer in
            transaction mode nothing is heard by the same: then a warning is logged, whoever waits looks for work every
            0.02 to 0.25 s, and subscribers hear nothing. `storage.backend.hears` tells.
        statement_cache_size: how many prepared statements a connection keeps; 0 behind PgBouncer in transaction mode.
        synchronous_commit: whether a commit is on disk before it is answered; None for what the server says.
        max_jobs: the most unfinished jobs at a time, else `CapacityExceeded`; None for no bound.
        max_finished_jobs: the most finished jobs that a sweep leaves; beyond it the oldest go first. None for no bound.
        completed_job_ttl: seconds that succeeded and deleted jobs are kept; None for ever.
        failed_job_ttl: seconds that failed jobs are kept; None for ever.
    """

    database_url: str = "postgresql://postgres@127.0.0.1:5432/postgres"
    _: KW_ONLY
    max_connections: int = 20
    min_connections: int = 1
    connect_timeout: float = 30.0
    command_timeout: float = 30.0
    idle_timeout: float = 600.0
    max_lifetime: float = 1_800.0
    schema_name: str = "qml"
    table_name: str = "qml_jobs"
    auto_migrate: bool = True
    require_ssl: bool = False
    listen_dsn: str | None = None
    statement_cache_size: int = 100
    synchronous_commit: bool | None = None
    max_jobs: int | None = None
    max_finished_jobs: int | None = 100_000
    completed_job_ttl: float | None = 86_400.0
    failed_job_ttl: float | None = 604_800.0

    def __post_init__(self) -> None:
        self._check_retention()
        check_int("max_connections", self.max_connections, 1, 10_000)
        check_int("min_connections", self.min_connections, 0, self.max_connections)
        check_int("statement_cache_size", self.statement_cache_size, 0, 100_000)
        for name in ("connect_timeout", "command_timeout", "max_lifetime"):
            self._set(**{name: check_seconds(name, getattr(self, name))})
        self._set(idle_timeout=check_seconds("idle_timeout", self.idle_timeout, above=False))
        for name in ("auto_migrate", "require_ssl"):
            check_bool(name, getattr(self, name))
        if self.synchronous_commit is not None:
            check_bool("synchronous_commit", self.synchronous_commit)
        for name in ("schema_name", "table_name"):
            value = getattr(self, name)
            if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
                remedy = "letters, digits and _, 40 at most, as in qml_jobs"
                raise InvalidValue(name, "to be a plain lower-case name", value, remedy)
        _check_postgres_url("database_url", self.database_url)
        if self.listen_dsn is not None:
            _check_postgres_url("listen_dsn", self.listen_dsn)

    def __repr__(self) -> str:
        """Show what differs from the default, and no password."""
        return _shown(self)


def _check_postgres_url(name: str, value: object) -> None:
    if not isinstance(value, str) or not _POSTGRES_URL.fullmatch(value):
        shown = without_password(value) if isinstance(value, str) else value
        remedy = "write postgresql://user@host:5432/database, with @ / ? # in a password as %40 %2F %3F %23"
        raise InvalidValue(name, "to be a URL", shown, remedy)


def without_password(url: str) -> str:
    """Return a URL as it may be shown; what is wrongly written may lose more than its password.

    >>> without_password("redis://joe:secret@host:6379/0?password=secret&db=5")
    'redis://joe:***@host:6379/0?password=***&db=5'
    """
    url = re.sub(r"(//[^:/?#@]*:).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def _shown(config: Options) -> str:
    changed = [name for name in signature(type(config)).parameters if getattr(config, name) != _default(config, name)]
    shown = {name: "***" if name == "password" else getattr(config, name) for name in changed}
    for name in ("url", "database_url", "listen_dsn"):
        if shown.get(name):
            shown[name] = without_password(shown[name])
    return f"{type(config).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _default(config: Options, name: str) -> object:
    return signature(type(config)).parameters[name].default


FULL = ("reject", "block", "drop_oldest")
"""What can happen to a job for which its queue has no room."""


@dataclass(frozen=True, slots=True)
class QueueConfig(Options):
    """What one queue may do, over all servers and callers; kept in the storage: see `Storage.configure_queue`.

    Args:
        concurrency: the most jobs of the queue that run at a time, prefetched ones included; None for no bound.
        rate: the most jobs a second that are handed out, on average; None for no bound. One that is handed back has
            used its turn.
        burst: how many may be handed out at once after a pause, where there is a rate.
        max_waiting: the most jobs that wait; None for no bound. Scheduled ones don't count until they are due, and what
            is due, retried, requeued or handed back comes in, full or not.
        when_full: what happens to a new job that finds the queue full. "reject": it raises `QueueFull`; "block": the
            caller waits until there is room; "drop_oldest": it is stored, and the oldest of those with the lowest
            priority is moved to deleted.
    """

    _: KW_ONLY
    concurrency: int | None = None
    rate: float | None = None
    burst: int = 1
    max_waiting: int | None = None
    when_full: str = "reject"

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_waiting"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        if self.rate is not None:
            self._set(rate=check_rate("rate", self.rate))
        check_int("burst", self.burst, 1, 1_000_000)
        if self.when_full not in FULL:
            raise InvalidValue("when_full", f"to be one of {', '.join(FULL)}", self.when_full)


@dataclass(frozen=True, slots=True)
class ServerConfig(Options):
    """Options of a `BackgroundJobServer`.

    Args:
        server_name: what people read in lists and logs; each server adds a suffix of its own to make its id.
        worker_count: how many jobs run at a time, its slots. `server.resize` changes it.
        polling_interval: the longest wait between two looks at an empty queue. The storage's push wakes the server
            much earlier; this is the net below it.
        queues: the queues to serve; empty for all of them. As a mapping, {"critical": 6, "bulk": 1}, it gives each a
            weight: of what is handed out, each gets that share while all of them have jobs, and what one leaves
            goes to the others.
        queue_order: "priority": the highest priority first, then the oldest, over all queues; "strict": the queues in
            the order given, the next one only when the one before has nothing to give. What was fetched ahead of idle
            slots runs first in any order. Weights need "priority", which then counts within a queue.
        fetch_batch_size: how many jobs one claim asks for, when that is more than the idle slots. The surplus waits
            inside the server, under lease: 1 for none, more for fewer round trips. With more than 1, a claim also
            asks for as many jobs as will start, at the last one's pace, while its answer is under way or in a quarter
            of a millisecond. What finds no idle slot for a second goes back.
        job_timeout: seconds of run time for a job without a timeout of its own; None for no limit.
        lease: seconds that a claim holds without renewal. Every third of it, leases are renewed; a server that
            dies loses its jobs to others after at most this time.
        shutdown_timeout: seconds that running jobs get to end when the server stops, before they are cancelled.
        scheduler_poll_interval: seconds between two sweeps: due jobs promoted, lost leases reclaimed, old jobs pruned,
            recurring schedules fired.
        telemetry_interval: seconds between two snapshots published in the storage, for monitors elsewhere; None for none.
        progress_interval: seconds between two reports of a job's progress; what it says meanwhile, but the last, is left out.
        process_count: how many processes run tasks registered with `process=True`, started as they are needed; None
            for one a processor.
    """

    server_name: str = "qml-server"
    _: KW_ONLY
    worker_count: int = 10
    polling_interval: float = 1.0
    queues: Sequence[str] | Mapping[str, float] = field(default=("default",), hash=False)  # a dict has no hash
    queue_order: str = "priority"
    fetch_batch_size: int = 10
    job_timeout: float | None = 300.0
    lease: float = 30.0
    shutdown_timeout: float = 30.0
    scheduler_poll_interval: float = 0.05
    telemetry_interval: float | None = 0.25
    progress_interval: float = 0.25
    process_count: int | None = None

    def __post_init__(self) -> None:
        check_name("server_name", self.server_name)
        check_int("worker_count", self.worker_count, 1, 100_000)
        check_int("fetch_batch_size", self.fetch_batch_size, 1, 100_000)
        for name in ("polling_interval", "lease", "scheduler_poll_interval"):
            self._set(**{name: check_seconds(name, getattr(self, name))})
        self._set(shutdown_timeout=check_seconds("shutdown_timeout", self.shutdown_timeout, above=False))
        if self.job_timeout is not None:
            self._set(job_timeout=check_seconds("job_timeout", self.job_timeout))
        if self.telemetry_interval is not None:
            self._set(telemetry_interval=check_seconds("telemetry_interval", self.telemetry_interval))
        self._set(progress_interval=check_seconds("progress_interval", self.progress_interval, above=False))
        if self.process_count is not None:
            check_int("process_count", self.process_count, 1, 10_000)
        self._check_queues()

    def _check_queues(self) -> None:
        if self.queue_order not in ("priority", "strict"):
            raise InvalidValue("queue_order", "to be priority or strict", self.queue_order)
        if self.queue_order == "strict" and not self.queues:
            raise InvalidValue("queues", "to be named where queue_order is strict", self.queues, "name them in order")
        weights = self.queues if isinstance(self.queues, Mapping) else {}
        if weights and self.queue_order == "strict":
            raise InvalidValue(
                "queues", "to be a list where queue_order is strict", weights, "weights are another order"
            )
        names = check_names("queues", self.queues) or ()
        shares = {name: check_rate(f"queues[{name!r}]", weight) for name, weight in weights.items()}
        self._set(queues=shares or names)

    @property
    def weights(self) -> Mapping[str, float] | None:
        """The weights of the queues, by name; None if they have none."""
        return self.queues if isinstance(self.queues, Mapping) else None
