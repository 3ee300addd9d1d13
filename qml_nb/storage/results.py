"""What becomes of a job, told as it happens: the part of `Storage` that waits for results and progress."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from qml_nb.errors import JobFailed, JobNotFound
from qml_nb.states import SUCCEEDED
from qml_nb.storage.backend import WATCHED
from qml_nb.storage.checks import checked_id
from qml_nb.validate import check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from qml_nb.job import Job, Report
    from qml_nb.storage.backend import Backend
    from qml_nb.storage.inbox import Inbox

WATCHED_FOR = 30.0
"""Seconds for which a backend is asked to tell; asked again at each look."""
_LOOK_HEARING, _LOOK_DEAF = (
    5.0,
    0.25,
)  # seconds between two looks: where messages arrive, the net below them; else the way


class Ears:
    """Those who follow jobs in one event loop, and the one subscription by which they are told."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._lock = asyncio.Lock()
        self._inbox: Inbox | None = None

    @property
    def hears(self) -> bool:
        """Whether messages arrive here."""
        return getattr(self._backend, "hears", None) is not False

    async def listen(self) -> None:
        """Return once all that becomes of watched jobs from now on is heard."""
        async with self._lock:
            if self._inbox is None:
                self._inbox = await self._backend.subscribe(WATCHED)
                self._inbox.hear(self._hear)

    @contextmanager
    def hearing(self, job_id: str) -> Iterator[asyncio.Event]:
        """Give what is set whenever something is told of the job."""
        heard = asyncio.Event()
        self._followers[job_id].add(heard)
        try:
            yield heard
        finally:
            self._followers[job_id].discard(heard)
            if not self._followers[job_id]:
                del self._followers[job_id]

    def _hear(self, message: bytes | None) -> None:
        """Take a message, which anybody may have sent; None is the end of the storage."""
        if message is None:
            self._inbox = None
            for followers in self._followers.values():
                for heard in followers:
                    heard.set()
        else:
            for heard in self._followers.get(message.decode(errors="replace"), ()):
                heard.set()


class Results:
    """Methods of `Storage`."""

    backend: Backend
    _ears: dict[asyncio.AbstractEventLoop, Ears]
    _watch_one: Callable[[str], Awaitable[Job | None]]

    async def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Keep how far claimed jobs are, for `Job.progress` and `follow`. False, and nothing kept: the lease was lost.

        A task calls `job_context().progress(…)`; this is for servers, and for who claims jobs by hand.
        """
        return await self.backend.report(reports)

    async def result(self, job_id: str, *, timeout: float | None = None) -> Any:
        """Wait until a job has ended, and return what its task returned. It is told at once, not polled for.

        Raises:
            JobFailed: it failed, or was deleted.
            JobNotFound: no job with that id is stored, or no longer.
            TimeoutError: it has not ended after `timeout` seconds.
        """
        limit = None if timeout is None else check_seconds("timeout", timeout, above=False)
        try:
            async with asyncio.timeout(limit), aclosing(self.follow(job_id)) as snapshots:
                last = [job async for job in snapshots][-1]
        except TimeoutError:
            raise TimeoutError(f"job {job_id!r} has not ended after {timeout:g} s") from None
        if last.state is SUCCEEDED:
            return last.result
        raise JobFailed(job_id, last.state, last.error or "")

    async def follow(self, job_id: str) -> AsyncGenerator[Job]:
        """Yield the job as it stands, again when it has reported progress, and last as it has ended.

        Several reports in quick succession may be seen as one. Use `contextlib.aclosing` to leave it early.

        Raises:
            JobNotFound: no job with that id is stored, or no longer.
        """
        checked_id(job_id)
        seen: Job | None = None
        ears = self._ears_here()
        with ears.hearing(job_id) as heard:
            await ears.listen()
            while True:
                heard.clear()
                job = await self._watch_one(job_id)
                if job is None:
                    raise JobNotFound(job_id)
                if seen is None or job.state.is_final or job.progress_json != seen.progress_json:
                    yield job
                if job.state.is_final:
                    return
                seen = job
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_HEARING if ears.hears else _LOOK_DEAF):
                        await heard.wait()

    def _ears_here(self) -> Ears:
        loop = asyncio.get_running_loop()
        if loop not in self._ears:
            self._ears = {known: ears for known, ears in self._ears.items() if not known.is_closed()}
            self._ears[loop] = Ears(self.backend)
        return self._ears[loop]

    async def _watch(self, ids: Sequence[str]) -> Sequence[Job | None]:
        return await self.backend.watch(ids, WATCHED_FOR)
