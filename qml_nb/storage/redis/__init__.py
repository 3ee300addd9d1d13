"""The Redis storage: a verb is a script, and each call of it is one round trip, however many jobs it carries.

All keys of a storage lie in one cluster slot, so that every verb is atomic over all queues, on a single server and on
a cluster alike. `shared.lua` says which keys there are.
"""

from __future__ import annotations

from asyncio import gather
from typing import TYPE_CHECKING, Any

from qml_nb.config import RedisConfig
from qml_nb.errors import CapacityExceeded
from qml_nb.job import CRASH_ATTEMPTS, ENQUEUED, FAILED, FINAL, LOST_LEASE, SCHEDULED, TRANSITIONS, JobState
from qml_nb.storage.backend import Swept
from qml_nb.storage.gathered import GatheredStorage
from qml_nb.storage.redis.packing import NUMBER, STATES, claimed_job, id_of, pack_body, pack_id, unpack_job
from qml_nb.storage.redis.records import RedisRecords, instant

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qml_nb.job import Job, JobFilter, Outcome
    from qml_nb.storage.redis.link import Argument

_BATCH = 1_000  # jobs a call: the server answers nobody else while a script runs
_PUSHED, _IN_FLIGHT = 500, 4  # jobs a push, and pushes at a time: one is packed while the server works on another
_LOOKED_AT = 1_000  # jobs that one call of `find` looks at


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
        if len(jobs) <= _PUSHED:
            return await self._push(jobs, 0)
        batches = [jobs[first : first + _PUSHED] for first in range(0, len(jobs), _PUSHED)]
        alone = 1 if self.config.max_jobs is not None else 0  # the first call looks whether all fit
        answers = [await self._push(batch, len(jobs) - len(batch)) for batch in batches[:alone]]
        for first in range(alone, len(batches), _IN_FLIGHT):
            answers += await gather(*(self._push(batch, 0) for batch in batches[first : first + _IN_FLIGHT]))
        return [new for answer in answers for new in answer]

    async def _push(self, jobs: Sequence[Job], coming: int) -> list[bool]:
        answer = await self._again("push", 2, self._most, coming, b"", *_as_pushed(jobs))
        if isinstance(answer, list):
            raise CapacityExceeded(self.config.max_jobs or 0, *answer)
        return _yes(answer)

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
        answer = await self._run("claim", instant(now), worker, limit, lease, *(queues or ()))
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

    async def sweep(self, limit: int, *, now: float | None = None) -> Swept:
        """See `Backend.sweep`."""
        _, failed_ttl, most_finished = self._kept
        return Swept(
            *await self._run(
                "sweep", instant(now), limit, failed_ttl, most_finished, LOST_LEASE.encode(), CRASH_ATTEMPTS
            )
        )

    # -- jobs are looked at, and moved by hand

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """See `Backend.get`."""
        packed = [pack_id(job_id) for job_id in ids]
        asked = [job_id for job_id in packed if job_id is not None]
        answer = await self._again("get", None, *asked) if asked else []
        found = {
            job_id: unpack_job(job_id, *answer[3 * at : 3 * at + 3])
            for at, job_id in enumerate(asked)
            if answer[3 * at]
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
            found += [unpack_job(*answer[at : at + 4]) for at in range(0, len(answer), 4)]
            if not below:
                break
        return found

    async def peek(self, queues: Collection[str] | None, limit: int) -> list[Job]:
        """See `Backend.peek`."""
        answer = await self._again("peek", None, limit, *(queues or ()))
        return [unpack_job(*answer[at : at + 3]) for at in range(0, len(answer), 3)]

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
            raise CapacityExceeded(self.config.max_jobs or 0, *answer)
        return _by_position(packed, answer)

    async def update(self, jobs: Sequence[Job], expected: JobState | None) -> list[bool]:
        """See `Backend.update`."""
        bodies = [argument for job in jobs for argument in (id_of(job), pack_body(job))]
        return _yes(await self._again("update", None, b"" if expected is None else NUMBER[expected], *bodies))

    async def erase(self, ids: Sequence[str]) -> list[bool]:
        """See `Backend.erase`."""
        packed = [pack_id(job_id) for job_id in ids]
        return _by_position(packed, await self._run("erase", *(job_id for job_id in packed if job_id is not None)))

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """See `Backend.counts`."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", "counts")
        named = ((field.partition(b":"), int(many)) for field, many in raw.items())
        return {(queue.decode(), STATES[int(state)]): many for (state, _, queue), many in named}

    @property
    def _most(self) -> Argument:
        return b"" if self.config.max_jobs is None else self.config.max_jobs

    @property
    def _kept(self) -> tuple[Argument, Argument, Argument]:
        config = self.config
        kept = (config.completed_job_ttl, config.failed_job_ttl, config.max_finished_jobs)
        completed, failed, most = (b"" if value is None else value for value in kept)
        return completed, failed, most


def _as_pushed(jobs: Sequence[Job]) -> list[Argument]:
    """Return what the script takes from its fourth argument on."""
    first = jobs[0]
    queue, priority = first.queue, first.priority
    arguments: list[Argument] = [queue, -priority]
    for job in jobs:
        if job.queue != queue or job.priority != priority or job.state is not ENQUEUED:
            break
        arguments += (id_of(job), pack_body(job))
    else:
        return arguments
    arguments = [b"", b""]
    for job in jobs:
        arguments += (id_of(job), pack_body(job), instant(job.run_ts) if job.state is SCHEDULED else b"")
    return arguments


def _as_settled(outcome: Outcome) -> tuple[Argument, ...]:
    text = outcome.result_json or (outcome.error or "").encode()
    failed = 0 if outcome.error is None else 1
    return pack_id(outcome.job_id) or b"", outcome.claim_id, NUMBER[outcome.to], text, failed, outcome.delay


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
