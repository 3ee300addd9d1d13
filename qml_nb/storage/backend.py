"""What a backend fulfils: the contract of the queue, batch-first.

Each verb takes a sequence and answers it by position, in one round trip; none reads first and writes in a second one.
Backends neither validate nor gather nor count: `Storage`, above them, does that once for all.

Time is the storage's clock, in POSIX seconds; `now=None` means that clock, and tests pass their own. Order, wherever
jobs come out to be run, is priority (higher first), then id: ids are uuid7, so that is the instant of creation, and a
job that was promoted, retried or handed back keeps the place that its age gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec import Struct

from qml_nb.job import Extras  # noqa: TC001, msgspec reads the annotations at run time

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qml_nb.config import QueueConfig
    from qml_nb.job import Job, JobFilter, Outcome, Report
    from qml_nb.states import JobState
    from qml_nb.storage.inbox import Inbox

WATCHED: Final = "qml:watched"
"""The channel on which a backend tells that a watched job ended, was removed, or reported progress: its id, as text."""
CANCELLED: Final = "qml:cancelled"
"""The channel on which the face tells that it cancelled a job: its id, as text. Servers that run it stop that."""
TELEMETRY: Final = "qml:telemetry"
"""The channel on which servers tell how they are."""
DEAD_SERVER: Final = 300.0
"""Seconds after its last heartbeat when a server is taken out of the registry."""


MISFIRE: Final = ("skip", "once", "all")
"""What can become of firings that were missed, as no server ran: none of them, one for all (the latest), or each."""


class Swept(NamedTuple):
    """How many jobs one `sweep` moved: due ones to enqueued, lost ones to enqueued or failed, old ones out."""

    promoted: int = 0
    reclaimed: int = 0
    failed: int = 0
    pruned: int = 0


class ServerInfo(Struct, frozen=True):
    """A server as the registry knows it. `started_ts` and `heartbeat_ts` are set by the storage's clock."""

    server_id: str
    server_name: str
    worker_count: int
    queues: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    started_ts: float = 0.0
    heartbeat_ts: float = 0.0


class Recurring(Struct, frozen=True):
    """A recurring schedule: which job to enqueue, by which cron expression, and when next (POSIX seconds)."""

    id: str
    cron: str
    method: str
    args_json: bytes = b"[]"
    kwargs_json: bytes = b"{}"
    queue: str = "default"
    priority: int = 0
    max_retries: int = 0
    timezone: str = "UTC"
    next_ts: float | None = None
    last_ts: float | None = None
    enabled: bool = True
    misfire: str = "once"
    """What becomes of firings that were missed: one of `MISFIRE`."""
    timeout: float | None = None
    metadata_json: bytes = b"{}"
    job_type: str | None = None
    extras: Extras | None = None


class LocalBackend(Protocol):
    """What a backend without round trips (`round_trip = False`) has besides the verbs of `Backend`."""

    def push_now(self, job: Job) -> bool | None:
        """Do what `push(each=True)` does for one job, without a coroutine, which would be a tenth of the whole call."""
        ...


class Backend(Protocol):
    """The verbs. `queues=None` means all queues.

    A paused queue gives nothing to `claim`, `peek` and `wait`, one with a `concurrency` or a `rate` (see `QueueConfig`) no
    more than these leave at that instant, and a locked job nothing to `peek`, `wait` and whoever did not lock it. What
    is due or over at an instant is so from that very instant on.

    The rate is kept as the instant up to which turns are used: each job handed out moves it by 1/rate, from now on if it
    lies in the past, and a job may be handed out from the instant on from which it lies no more than (`burst` - 1)/rate
    ahead. A new configuration begins with all turns free.
    """

    name: str
    """What people read: "memory", "redis", "postgres"."""
    round_trip: bool
    """Whether a call costs a trip to a server, so that gathering calls pays."""

    async def open(self) -> None:
        """Connect; safe to repeat."""

    async def close(self) -> None:
        """Let go of every connection, and wake whoever waits."""

    async def migrate(self) -> None:
        """Bring what the storage keeps to the form that this version reads."""

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """Store new jobs, enqueued or scheduled; all are stored when it returns.

        False: its id is there, or its unique key is taken, by another one (of the same call, too): nothing was touched.
        With `each`, None: its queue is full, and it was not stored; the others were. Where a queue drops its oldest, and
        new ones wait in it, as many as are too many are moved to deleted with the error `DROPPED`: of the lowest
        priority, by id, those just stored included. The bound of the storage is looked at before those of queues, for
        all jobs that are new.

        A key is taken by the job that was stored with it: while that is unfinished, or, with `unique_for`, for so many
        seconds from then, also when it is finished or pruned; in both cases no longer once it is erased.

        Raises:
            CapacityExceeded: not all fit; none was stored.
            QueueFull: not all fit into a queue; none was stored. Not with `each`.
        """
        ...

    async def holders(self, keys: Sequence[str], *, now: float | None = None) -> list[str | None]:
        """Return the id of the job by which each unique key is taken; None: it is free."""
        ...

    async def claim(
        self,
        worker: str,
        queues: Collection[str] | None,
        limit: int,
        lease: float,
        *,
        in_turn: bool = False,
        now: float | None = None,
    ) -> list[Job]:
        """Hand up to `limit` enqueued jobs to `worker`, in order, hidden from others for `lease` seconds.

        Each comes with `attempt` raised by one, and so it is stored. A job whose lock somebody else holds is passed over.
        With `in_turn`, all that the first of the `queues` gives comes before the first of the next one; of all queues
        (None), none is the first.
        """
        ...

    async def settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> list[bool]:
        """Write what became of claimed jobs. False, and nothing written, where the claim is no longer held."""
        ...

    async def renew(self, jobs: Sequence[Job], lease: float, *, now: float | None = None) -> list[bool]:
        """Let the claims run for `lease` seconds from now. False where the claim is no longer held."""
        ...

    async def report(self, reports: Sequence[Report]) -> list[bool]:
        """Keep how far claimed jobs are, and tell who watches them. False, and nothing kept: the claim is no longer held.

        It stays with the job, also when that has ended, until it is claimed again.
        """
        ...

    async def sweep(self, limit: int, *, now: float | None = None) -> Swept:
        """Promote due jobs, reclaim those whose lease ran out, prune expired ones: up to `limit` of each.

        Also forgets what has run out: locks, unique keys, watches, and servers unheard of for `DEAD_SERVER` seconds.
        """
        ...

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """Look jobs up."""
        ...

    async def watch(self, ids: Sequence[str], seconds: float) -> list[Job | None]:
        """Look jobs up, as `get` does, and for so many seconds tell on the channel `WATCHED` what becomes of them.

        That is told when one ends (by whatever verb), is erased or pruned, or has reported progress. On the storage's clock.
        """
        ...

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """Return matching jobs, newest first, from below the id `after`: a page that is right while jobs move."""
        ...

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """Return what `claim` would hand out, and leave it where it is."""
        ...

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """Move jobs whose state is expected, and from which `TRANSITIONS` has the move. False: not so, or no such job.

        A finished job with a unique key takes that again with the move back, if the key has no time of its own. False
        also where another job holds it.
        """
        ...

    async def update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bool]:
        """Write what `CHANGEABLE` names. False: no such job, or not in that state.

        State, claim and unique key stay as stored: of the extras, only `retry` is written.
        """
        ...

    async def erase(self, ids: Sequence[str]) -> list[bool]:
        """Remove jobs in any state, without a trace. False: no such job."""
        ...

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """Return how many jobs are stored, by queue and state, exactly and without a scan; zeros are left out."""
        ...

    async def wait(self, queues: Collection[str] | None, timeout: float) -> bool:
        """Return True as soon as a job may be there to claim, False after `timeout` seconds."""
        ...

    async def lock_job(self, job_id: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """Lock one job against claims by others; not re-entrant. False: somebody holds its lock or its lease.

        Raises:
            JobNotFound: no such job.
        """
        ...

    async def unlock_job(self, job_id: str, owner: str) -> bool:
        """Release the job's lock. False: `owner` does not hold it."""
        ...

    async def lock(self, name: str, owner: str, ttl: float, *, now: float | None = None) -> bool:
        """Take a named lock, or let one's own run on for `ttl` seconds. False: somebody else holds it."""
        ...

    async def unlock(self, name: str, owner: str) -> bool:
        """Release the named lock. False: `owner` does not hold it."""
        ...

    async def put_recurring(self, schedule: Recurring) -> None:
        """Store the schedule, in place of one with the same id."""

    async def drop_recurring(self, schedule_id: str) -> bool:
        """Remove the schedule. False: no such one."""
        ...

    async def list_recurring(self) -> list[Recurring]:
        """Return all schedules, by id."""
        ...

    async def due_recurring(self, limit: int, *, now: float | None = None) -> tuple[float, list[Recurring]]:
        """Return the storage's time, and the enabled schedules whose `next_ts` is not after it, the earliest first."""
        ...

    async def swap_recurring(
        self, old: Recurring | None, new: Recurring, jobs: Sequence[Job] = (), *, now: float | None = None
    ) -> bool:
        """Store `new` in place of `old`, and `jobs` as `push` does, in one step. False, and nothing done: `old` isn't there.

        `old=None`: there is no schedule with that id. Jobs come in whether or not their queue is full.

        Raises:
            CapacityExceeded: not all fit into the storage; nothing was done.
        """
        ...

    async def put_server(self, server: ServerInfo, *, now: float | None = None) -> None:
        """Enter a server that starts."""

    async def beat_server(self, server_id: str, *, now: float | None = None) -> bool:
        """Note that the server lives. False: it is not in the registry."""
        ...

    async def drop_server(self, server_id: str) -> bool:
        """Remove a server. False: it was not there."""
        ...

    async def list_servers(self) -> list[ServerInfo]:
        """Return all servers, by id."""
        ...

    async def pause(self, queue: str) -> bool:
        """Hand out nothing more from the queue. False: it was paused."""
        ...

    async def resume(self, queue: str) -> bool:
        """Hand out from the queue again. False: it was not paused."""
        ...

    async def paused(self) -> list[str]:
        """Return the paused queues, by name."""
        ...

    async def put_limits(self, queue: str, limits: QueueConfig | None) -> None:
        """Set what a queue may do, in place of what it was before; None: whatever it likes."""

    async def limits(self) -> dict[str, QueueConfig]:
        """Return what queues may do, where that was set."""
        ...

    async def publish(self, channel: str, message: bytes) -> None:
        """Give a message to everyone who is subscribed now."""

    async def subscribe(self, channel: str) -> Inbox:
        """Return the messages from then on. A reader that falls behind loses the oldest."""
        ...
