"""The Redis storage: a verb is a script, and each call of it is one round trip, however many jobs it carries.

All keys of a storage lie in one cluster slot, so that every verb is atomic over all queues, on a single server and on
a cluster alike. `shared.lua` says which keys there are.
"""

from __future__ import annotations

from asyncio import gather
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qml_nb.config import RedisConfig
from qml_nb.errors import CapacityExceeded, QueueFull
from qml_nb.states import CRASH_ATTEMPTS, DROPPED, ENQUEUED, FAILED, FINAL, LOST_LEASE, SCHEDULED, TRANSITIONS, JobState
from qml_nb.storage.backend import DEAD_SERVER, WATCHED, Swept
from qml_nb.storage.gathered import GatheredStorage
from qml_nb.storage.redis.packing import (
    NUMBER,
    STATES,
    claimed_job,
    id_of,
    pack_body,
    pack_id,
    pack_key,
    unpack_id,
    unpack_job,
    with_key,
)
from qml_nb.storage.redis.records import RedisRecords, as_stored, instant

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qml_nb.job import Job, JobFilter, Outcome, Report
    from qml_nb.storage.backend import Recurring
    from qml_nb.storage.redis.link import Argument

_BATCH = 1_000  # jobs a call: the server answers nobody else while a script runs
_PUSHED, _IN_FLIGHT = 500, 4  # jobs a push, and pushes at a time: one is packed while the server works on another
_LOOKED_AT = 1_000  # jobs that one call of `find` looks at
_ALL, _EACH, _OVER, _PART = b"", b"each", b"over", b"part"  # what push.lua does where there is no room
_STORED = {0x30: False, 0x31: True, 0x32: None}
_DROPPED = DROPPED.encode()


class RedisStorage(GatheredStorage):
    """A storage on Redis or Valkey: `RedisStorage("redis://host:6379/0", key_prefix="qml")`; see `RedisConfig`.

    Callable from any thread and any event loop; it has connections of its own in each.
    """

    def __init__(self, config: RedisConfig | str | None = None, **options: Any) -> None:
        if isinstance(config, str):
            config, options = None, {"url": config, **options}
        super().__init__(RedisBackend(RedisConfig.of(config, options)))


class RedisBackend(RedisRecords):
    """The verbs of `Backend` on scripts."""

    name = "redis"
    round_trip = True

    # -- jobs come in, are claimed, and end

    async def push(self, jobs: Sequence[Job], *, each: bool = False, now: float | None = None) -> Sequence[bool | None]:
        """See `Backend.push`."""
        room = _EACH if each else _ALL
        if len(jobs) <= _PUSHED:
            return await self._push(jobs, room, 0, now)
        try:
            return await self._push_parts(jobs, _PART, now)
        except _Bounded:
            return await self._push_bounded(jobs, room, now)

    async def _push(self, jobs: Sequence[Job], room: bytes, coming: int, now: float | None) -> Sequence[bool | None]:
        completed_ttl, _, most_finished = self._kept
        arguments = (instant(now), self._most, coming, b"", room, completed_ttl, most_finished, _DROPPED)
        answer = await self._again("push", 3, *arguments, *_as_pushed(jobs))
        if answer == 0:
            raise _Bounded
        if isinstance(answer, list):
            raise self._refusal(*answer)
        return [_STORED[digit] for digit in answer]

    async def _push_parts(self, jobs: Sequence[Job], room: bytes, now: float | None) -> Sequence[bool | None]:
        """Push in several calls, some of them at a time."""
        batches = [jobs[first : first + _PUSHED] for first in range(0, len(jobs), _PUSHED)]
        alone = 1 if self.config.max_jobs is not None else 0  # the first call looks whether all fit
        answers = [await self._push(batch, room, len(jobs) - len(batch), now) for batch in batches[:alone]]
        for first in range(alone, len(batches), _IN_FLIGHT):
            answers += await gather(*(self._push(batch, room, 0, now) for batch in batches[first : first + _IN_FLIGHT]))
        return [new for answer in answers for new in answer]

    async def _push_bounded(self, jobs: Sequence[Job], room: bytes, now: float | None) -> Sequence[bool | None]:
        """Push in one call what goes to queues with a bound, so that it sees whether all fit; then the others."""
        bounded = {queue for queue, limits in (await self.limits()).items() if limits.max_waiting is not None}
        held = [job for job in jobs if job.queue in bounded]
        others = [job for job in jobs if job.queue not in bounded]
        first = iter(await self._push(held, room, len(others), now) if held else ())
        then = iter(await self._push_parts(others, _OVER, now) if others else ())
        return [next(first if job.queue in bounded else then) for job in jobs]

    async def swap_recurring(
        self, old: Recurring | None, new: Recurring, jobs: Sequence[Job] = (), *, now: float | None = None
    ) -> bool:
        """See `Backend.swap_recurring`."""
        before = b"" if old is None else as_stored(old)[0]
        arguments = (instant(now), b"", new.id, before, *as_stored(new), self._most, *_one_by_one(jobs))
        answer = await self._again("swap_recurring", 1, *arguments)
        if isinstance(answer, list):
            raise self._refusal(*answer)
        return bool(answer)

    async def holders(self, keys: Sequence[str], *, now: float | None = None) -> list[str | None]:
        """See `Backend.holders`."""
        return [
            unpack_id(holder) if holder else None for holder in await self._again("holders", None, instant(now), *keys)
        ]

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
        """See `Backend.claim`."""
        answer = await self._run(
            "claim", instant(now), worker, limit, lease, int(in_turn and queues is not None), *(queues or ())
        )
        if not answer:
            return []
        started, claim_id = float(answer[0]), answer[1]
        return [
            claimed_job(answer[at], answer[at + 1], answer[at + 2], worker, started, lease, claim_id + (at - 2) // 3)
            for at in range(2, len(answer), 3)
        ]

    async def settle(self, outcomes: Sequence[Outcome], *, now: float | None = None) -> list[bool]:
        """See `Backend.settle`."""
        kept = self._kept
        answers: list[bool] = []
        for first in range(0, len(outcomes), _BATCH):
            batch = outcomes[first : first + _BATCH]
            arguments = [argument for outcome in batch for argument in _as_settled(outcome)]
            answers += _yes(await self._again("settle", 4, instant(now), *kept, b"", *arguments))
        return answers

    async def renew(self, jobs: Sequence[Job], lease: float, *, now: float | None = None) -> list[bool]:
        """See `Backend.renew`."""
        claims = [argument for job in jobs for argument in (id_of(job), job.claim_id)]
        return _yes(await self._again("renew", None, instant(now), lease, *claims))

    async def report(self, reports: Sequence[Report]) -> list[bool]:
        """See `Backend.report`."""
        said = [
            argument
            for report in reports
            for argument in (pack_id(report.job_id) or b"", report.claim_id, report.progress_json)
        ]
        return _yes(await self._again("report", None, *said))

    async def sweep(self, limit: int, *, now: float | None = None) -> Swept:
        """See `Backend.sweep`."""
        _, failed_ttl, most_finished = self._kept
        return Swept(
            *await self._run(
                "sweep",
                instant(now),
                limit,
                failed_ttl,
                most_finished,
                LOST_LEASE.encode(),
                CRASH_ATTEMPTS,
                DEAD_SERVER,
            )
        )

    # -- jobs are looked at, and moved by hand

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        return await self._look_at("get", ids)

    async def watch(self, ids: Sequence[str], seconds: float) -> list[Job | None]:
        """See `Backend.watch`."""
        return await self._look_at("watch", ids, seconds, f"{self._channels}{WATCHED}")

    async def _look_at(self, verb: str, ids: Sequence[str], *arguments: Argument) -> list[Job | None]:
        packed = [pack_id(job_id) for job_id in ids]
        asked = [job_id for job_id in packed if job_id is not None]
        answer = await self._again(verb, None, *arguments, *asked) if asked else []
        found = {
            job_id: unpack_job(job_id, *answer[4 * at : 4 * at + 4])
            for at, job_id in enumerate(asked)
            if answer[4 * at]
        }
        return [None if job_id is None else found.get(job_id) for job_id in packed]

    async def find(self, wanted: JobFilter, limit: int, after: str | None = None) -> list[Job]:
        """See `Backend.find`."""
        below = b"" if after is None else _place(after)
        state = b"" if wanted.state is None else NUMBER[wanted.state]
        found: list[Job] = []
        while len(found) < limit:
            below, *answer = await self._again(
                "find", None, limit - len(found), below, state, wanted.queue or b"", wanted.method or b"", _LOOKED_AT
            )
            found += [unpack_job(*answer[at : at + 5]) for at in range(0, len(answer), 5)]
            if not below:
                break
        return found

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        answer = await self._again("peek", None, limit, *(queues or ()))
        return [_peeked(*answer[at : at + 4]) for at in range(0, len(answer), 4)]

    async def move(
        self, ids: Sequence[str], to: JobState, expected: Collection[JobState], *, now: float | None = None
    ) -> list[bool]:
        """See `Backend.move`."""
        allowed = b"".join(NUMBER[state] for state in expected if to in TRANSITIONS[state])
        completed_ttl, failed_ttl, most_finished = self._kept
        ttl = failed_ttl if to is FAILED else completed_ttl
        packed = [pack_id(job_id) for job_id in ids]
        asked = [job_id for job_id in packed if job_id is not None]
        answer = await self._run(
            "move", instant(now), NUMBER[to], ttl if to in FINAL else b"", self._most, most_finished, allowed, *asked
        )
        if isinstance(answer, list):
            raise self._refusal(*answer)
        return _by_position(packed, answer)

    async def update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bool]:
        """See `Backend.update`."""
        answers = await self._update(jobs, expected)
        for at, answer in enumerate(answers):
            if answer.startswith(b"k"):  # the key that the job came with is not the stored one, which stays
                [answers[at]] = await self._update([with_key(jobs[at], answer[1:])], expected)
        return [answer == b"1" for answer in answers]

    async def _update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bytes]:
        bodies = [argument for job in jobs for argument in (id_of(job), pack_body(job), pack_key(job))]
        answers: list[bytes] = await self._again("update", None, b"" if expected is None else NUMBER[expected], *bodies)
        return answers

    async def erase(self, ids: Sequence[str]) -> list[bool]:
        """See `Backend.erase`."""
        packed = [pack_id(job_id) for job_id in ids]
        return _by_position(packed, await self._run("erase", *(job_id for job_id in packed if job_id is not None)))

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", "counts")
        named = ((field.partition(b":"), int(many)) for field, many in raw.items())
        return {(queue.decode(), STATES[int(state)]): many for (state, _, queue), many in named}

    def _refusal(self, *answer: Any) -> CapacityExceeded:
        """Return what to raise when not all jobs fit into the storage, or into a queue."""
        if isinstance(answer[0], bytes):
            queue, *numbers = answer
            return QueueFull(queue.decode(), *numbers)
        return CapacityExceeded(self.config.max_jobs or 0, *answer)

    @cached_property
    def _most(self) -> Argument:
        return b"" if self.config.max_jobs is None else self.config.max_jobs

    @cached_property
    def _kept(self) -> tuple[Argument, Argument, Argument]:
        config = self.config
        kept = (config.completed_job_ttl, config.failed_job_ttl, config.max_finished_jobs)
        completed, failed, most = (b"" if value is None else value for value in kept)
        return completed, failed, most


class _Bounded(Exception):
    """A part of what was pushed goes to a queue that may have a bound."""


def _as_pushed(jobs: Sequence[Job]) -> list[Argument]:
    """Return what the script takes as its jobs, and how it finds them."""
    if len(jobs) > _PUSHED:  # more than a command of a script takes
        return [b"", *_one_by_one(jobs)]
    first = jobs[0]
    queue, priority = first.queue, first.priority
    arguments: list[Argument] = [queue, -priority]
    for job in jobs:
        if job.queue != queue or job.priority != priority or job.state is not ENQUEUED:
            break
        if job.extras is not None and job.extras.unique_key is not None:
            break
        arguments += (id_of(job), pack_body(job))
    else:
        return arguments
    return [b"", *_one_by_one(jobs)]


def _one_by_one(jobs: Sequence[Job]) -> list[Argument]:
    """Return how many arguments each job has, and these."""
    keyed = any(job.extras is not None for job in jobs)
    arguments: list[Argument] = [4 if keyed else 3]
    for job in jobs:
        arguments += (id_of(job), pack_body(job), instant(job.run_ts) if job.state is SCHEDULED else b"")
        if keyed:
            arguments.append(pack_key(job))
    return arguments


def _as_settled(outcome: Outcome) -> tuple[Argument, ...]:
    text = outcome.result_json or (outcome.error or "").encode()
    failed = 0 if outcome.error is None else 1
    return pack_id(outcome.job_id) or b"", outcome.claim_id, NUMBER[outcome.to], text, failed, outcome.delay


def _peeked(packed_id: bytes, body: bytes, head: bytes, progress: bytes) -> Job:
    return unpack_job(packed_id, body, head, progress=progress)


def _yes(digits: bytes) -> list[bool]:
    return [digit == 0x31 for digit in digits]


def _by_position(packed: Sequence[bytes | None], digits: bytes) -> list[bool]:
    """Return the answers by position, False where there was nothing to ask for."""
    answers = iter(_yes(digits))
    return [job_id is not None and next(answers) for job_id in packed]


def _place(after: str) -> bytes:
    """Return where an id lies, or would lie if it were one."""
    packed = pack_id(after)
    return packed if packed is not None else bytes.fromhex((after.replace("-", "") + "0" * 32)[:32])
