"""What a job cost a server: the difference of two readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from qml_nb.validate import check_int

if TYPE_CHECKING:
    from qml_nb.measure.postgres_reading import PostgresCost, PostgresReading
    from qml_nb.measure.redis_probe import RedisCost, RedisReading


@overload
def cost_per_job(before: RedisReading, after: RedisReading, jobs: int) -> RedisCost: ...
@overload
def cost_per_job(before: PostgresReading, after: PostgresReading, jobs: int) -> PostgresCost: ...
def cost_per_job(before: Any, after: Any, jobs: int) -> Any:
    """Return what each of so many jobs cost between two readings of one server.

    The readings' own commands are in it: take many jobs. PostgreSQL's connections tell what they counted each second,
    after ten seconds of idling, and when they are closed: close the storage first, or wait.
    """
    check_int("jobs", jobs, 1)
    return after.cost_since(before, jobs)
