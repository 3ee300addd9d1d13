"""Which outcomes are written together, so that one that the storage won't take keeps no other from being written."""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING, Final

from qml_nb.job import Outcome
from qml_nb.states import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.server.progress import Reports
    from qml_nb.server.run import Run
    from qml_nb.server.slots import Slots
    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.server")

LARGE: Final = 65_536
"""Bytes of a result beyond which it may be what the storage does not take."""
TRIES: Final = 3


class Settling:
    """Writes outcomes. All at once, until that fails; then the small ones, and the large ones one by one.

    A large result that was tried alone, `TRIES` times, on a storage that answers otherwise, fails its job.
    """

    def __init__(self, storage: Storage, reports: Reports) -> None:
        self._storage, self._reports = storage, reports
        self._apart = False
        self._tries: dict[int, int] = {}

    async def write(self, slots: Slots) -> tuple[list[Run], Sequence[bool]]:
        """Write what ended, or a part of it, and return which, and for each whether its claim still held. The rest stays there."""
        batch, rest = self._pick(slots.ended)
        slots.ended = []
        try:
            await self._reports.write_last(run.job.claim_id for run in batch)
            answers = await self._storage.settle([run.outcome for run in batch if run.outcome is not None])
        except BaseException as error:
            slots.ended = batch + rest + slots.ended
            if isinstance(error, Exception):
                await self._note_failure(batch, error)
            raise
        slots.ended = rest + slots.ended
        self._note_success(batch, rest)
        return batch, answers

    def _pick(self, ended: list[Run]) -> tuple[list[Run], list[Run]]:
        """Return what is to be written now, and the rest."""
        if not self._apart:
            return ended, []
        small = [run for run in ended if not _is_large(run)]
        return (small, [run for run in ended if _is_large(run)]) if small else (ended[:1], ended[1:])

    def _note_success(self, batch: list[Run], rest: list[Run]) -> None:
        for run in batch if self._tries else ():
            self._tries.pop(run.job.claim_id, None)
        self._apart = self._apart and bool(rest)

    async def _note_failure(self, batch: list[Run], error: Exception) -> None:
        """Give up what will never be written."""
        self._apart = True
        [run, *others] = batch
        if others or not _is_large(run) or not await self._answers(run):
            return
        tries = self._tries[run.job.claim_id] = self._tries.get(run.job.claim_id, 0) + 1
        if tries >= TRIES:
            size = _size(run)
            log.warning("job %s failed: its result of %d bytes could not be stored: %s", run.job.id, size, error)
            why = (
                f"its result of {size:,} bytes could not be stored: {error}; store it elsewhere, and return where it is"
            )
            run.outcome = Outcome(run.job.id, run.job.claim_id, FAILED, error=why)

    async def _answers(self, run: Run) -> bool:
        """Whether the storage is there, so that it is the result's fault."""
        try:
            await self._storage.get(run.job.id)
        except Exception:
            return False
        return True


def _is_large(run: Run) -> bool:
    return _size(run) > LARGE


def _size(run: Run) -> int:
    return 0 if run.outcome is None or run.outcome.result_json is None else len(run.outcome.result_json)
