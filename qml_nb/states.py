"""The states of a job, and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CRASH_ATTEMPTS: Final = 3
"""How often a job is handed out at the least before lost leases end it: a worker's death is seldom the job's fault."""
LOST_LEASE: Final = "the worker's lease ran out, and no attempt is left"
"""The error of a job that lost leases ended."""
DROPPED: Final = "dropped: its queue was full, and newer jobs came"
"""The error of a job that made room in a queue whose `when_full` is drop_oldest."""


class JobState(StrEnum):
    """Where a job stands. `TRANSITIONS` has the moves between the states."""

    ENQUEUED = "enqueued"
    PROCESSING = "processing"
    SCHEDULED = "scheduled"
    AWAITING_RETRY = "awaiting_retry"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETED = "deleted"

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to the job any more unless somebody asks for it."""
        return self in FINAL


ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY, SUCCEEDED, FAILED, DELETED = JobState
FINAL: Final = frozenset((SUCCEEDED, FAILED, DELETED))
LIVE: Final = frozenset((ENQUEUED, PROCESSING, SCHEDULED, AWAITING_RETRY))
TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        ENQUEUED: frozenset((PROCESSING, SCHEDULED, FAILED, DELETED)),
        SCHEDULED: frozenset((ENQUEUED, DELETED)),
        # Back to enqueued only by lease expiry or by a graceful hand-back, never by hand.
        PROCESSING: frozenset((SUCCEEDED, FAILED, AWAITING_RETRY, DELETED, ENQUEUED)),
        AWAITING_RETRY: frozenset((ENQUEUED, DELETED)),
        FAILED: frozenset((ENQUEUED, AWAITING_RETRY, DELETED)),
        SUCCEEDED: frozenset((DELETED,)),
        DELETED: frozenset(),
    }
)
"""The only moves that there are, as {from: {to, …}}."""


def may_run_again(attempt: int, max_retries: int) -> bool:
    """Whether a job whose lease was lost during its `attempt`-th run is handed out again.

    >>> may_run_again(2, max_retries=0), may_run_again(3, max_retries=0), may_run_again(3, max_retries=5)
    (True, False, True)
    """
    return attempt < max(max_retries + 1, CRASH_ATTEMPTS)
