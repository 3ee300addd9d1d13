"""Snapshots on their way: from servers to monitors in other processes, as messages of the storage.

A message is made small, since PostgreSQL carries only short ones without a table: of the histograms, the gaps between
the steps instead of the steps. What arrives may come from anybody: what can't be a snapshot is nobody's.
"""

from __future__ import annotations

import zlib
from collections import Counter
from itertools import accumulate, pairwise
from logging import getLogger
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import replace

from qml_nb.server.telemetry import PHASES, Count, Snapshot, TaskCount, bucket, task_count
from qml_nb.storage.backend import TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qml_nb.storage.storage import Storage

log = getLogger("qml_nb.server")

_LARGEST: Final = 1 << 20
"""Bytes of a message when it is unpacked. A server with 200 tasks and the longest names comes to half of it."""
_HIGHEST: Final = bucket(2**62)
_Steps: TypeAlias = tuple[list[Count], list[Count]]


class _Message(Struct, frozen=True):
    snapshot: Snapshot
    steps: dict[str, _Steps]
    """Of each phase the gaps between the steps in which jobs are, the first one from 0, and how many are in each."""


_encoder: Final = Encoder()
_decoder: Final = Decoder(_Message)


def encode(snapshot: Snapshot) -> bytes:
    """Return the snapshot as a message."""
    steps = {phase: _packed(buckets) for phase, buckets in snapshot.phases.items()}
    return zlib.compress(_encoder.encode(_Message(replace(snapshot, phases={}), steps)))


def decode(message: bytes) -> Snapshot | None:
    """Return the snapshot that a message carries; None: it carries none."""
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(message, _LARGEST)
        if not unpacking.eof:  # it is cut off, or larger
            return None
        told = _decoder.decode(body)
    except (zlib.error, MsgspecError, RecursionError):
        return None
    phases = {phase: _unpacked(*told.steps.get(phase, ((), ()))) for phase in PHASES}
    if any(step > _HIGHEST for buckets in phases.values() for step in buckets):
        return None
    return replace(told.snapshot, phases=phases)


def _packed(buckets: dict[int, int]) -> _Steps:
    steps = sorted(buckets)
    return [later - step for step, later in pairwise((0, *steps))], [buckets[step] for step in steps]


def _unpacked(gaps: Sequence[int], counts: Sequence[int]) -> dict[int, int]:
    return dict(zip(accumulate(gaps), counts, strict=False))


def joined(earlier: Snapshot, later: Snapshot) -> Snapshot:
    """Return two snapshots of a server that follow each other as one."""
    phases = {
        phase: dict(Counter(earlier.phases.get(phase, {})) + Counter(later.phases.get(phase, {}))) for phase in PHASES
    }
    tasks: dict[tuple[str, str], TaskCount] = {}
    for task in (*earlier.tasks, *later.tasks):
        task_count(tasks, task.queue, task.method).add(task)
    return replace(later, phases=phases, tasks=tuple(tasks.values()))


class Broadcast:
    """Gathers the snapshots of a server, and publishes them as one. Used from the server's loop only."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._gathered: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        """Take a snapshot, to be sent with those before it."""
        self._gathered = snapshot if self._gathered is None else joined(self._gathered, snapshot)

    async def send(self) -> None:
        """Publish what was gathered. Telemetry never fails: what can't be sent is forgotten."""
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            return
        try:
            await self._storage.publish(TELEMETRY, encode(gathered))
        except Exception as error:
            log.debug("a snapshot of %s was not published: %s", gathered.server_id, error)
