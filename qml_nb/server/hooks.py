"""Telling others which moves a server's jobs made."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from inspect import isawaitable
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from qml_nb.states import ENQUEUED, PROCESSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qml_nb.job import Job
    from qml_nb.server.run import Run
    from qml_nb.states import JobState

log = getLogger("qml_nb.server")

Hook: TypeAlias = "Callable[[Job, JobState, JobState], Any]"
MOVES_KEPT: Final = 10_000
"""How many moves wait for hooks that fall behind; then the oldest go."""
_IN_ONE_GO = 256


class Hooks:
    """Tells hooks of moves one by one, in their order, in a task of its own: a slow hook holds up no job."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks
        self._moves: deque[tuple[Job, JobState, JobState]] = deque(maxlen=MOVES_KEPT)
        self._missed = 0
        self._there = asyncio.Event()
        self._is_last = False
        self._telling = asyncio.create_task(self._tell())

    def claimed(self, jobs: Iterable[Job]) -> None:
        """Jobs were claimed."""
        self._add([(job, ENQUEUED, PROCESSING) for job in jobs])

    def settled(self, runs: Sequence[Run], answers: Sequence[bool]) -> None:
        """Jobs ended, and the storage has answered for each whether its outcome was written."""
        pairs = zip(runs, answers, strict=True)
        self._add(
            [(run.job, PROCESSING, run.outcome.to) for run, written in pairs if written and run.outcome is not None]
        )

    async def end(self, timeout: float) -> None:
        """Tell what there still is, for `timeout` seconds at the most."""
        self._is_last = True
        self._there.set()
        await asyncio.wait([self._telling], timeout=timeout)
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)

    def _add(self, moves: list[tuple[Job, JobState, JobState]]) -> None:
        self._missed += max(len(self._moves) + len(moves) - MOVES_KEPT, 0)
        self._moves.extend(moves)
        self._there.set()

    async def _tell(self) -> None:
        told = 0
        while self._moves or not self._is_last:
            if not self._moves:
                self._there.clear()
                await self._there.wait()
                continue
            if self._missed:
                log.warning("state-change hooks fell behind and missed %d moves", self._missed)
                self._missed = 0
            move = self._moves.popleft()
            for hook in tuple(self._hooks):
                try:
                    answer = hook(*move)
                    if answer is not None:  # a coroutine for each call would cost as much as the hook
                        await _until_told(answer)
                except BaseException:
                    _bear(*move)
            told += 1
            if not told % _IN_ONE_GO:
                await asyncio.sleep(0)


async def _until_told(answer: Any) -> None:
    if isawaitable(answer):
        await answer


def _bear(job: Job, old: JobState, new: JobState) -> None:
    """Log what a hook raised; raise it where it is not of the hook's making: the telling itself is ended."""
    task, error = asyncio.current_task(), sys.exception()
    is_cancelled = task is not None and task.cancelling()
    if error is not None and (is_cancelled or isinstance(error, (KeyboardInterrupt, GeneratorExit))):
        raise error
    log.exception("a state-change hook failed for %s: %s to %s", job.id, old, new)
