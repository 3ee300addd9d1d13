"""Middleware and hooks around the jobs of a real storage."""

from __future__ import annotations

from collections import defaultdict

from qml_nb import Job, JobState, RetryPolicy
from tests.server.waiting import run


async def test_middleware_stands_around_every_run(storage, registry, serve) -> None:
    steps: defaultdict[str, list[str]] = defaultdict(list)
    registry.register("divide", lambda a, b: a / b)

    @registry.middleware
    async def outer(job, ctx, call_next):
        steps[job.id].append(f"outer {ctx.attempt}")
        try:
            return {"result": await call_next()}
        except ZeroDivisionError as error:
            raise OSError("translated") from error

    @registry.middleware
    async def inner(job, ctx, call_next):
        steps[job.id].append("inner")
        return "cached" if job.args == [0, 0] else await call_next()

    await serve(retry=RetryPolicy.fixed(0))
    good, cached, bad = [Job("divide", args, max_retries=1) for args in ([1, 2], [0, 0], [1, 0])]
    good, cached, bad = await run(storage, good, cached, bad)
    assert (good.result, cached.result) == ({"result": 0.5}, {"result": "cached"})
    assert bad.state is JobState.FAILED
    assert bad.error.startswith("OSError: translated")
    assert steps[bad.id] == ["outer 1", "inner", "outer 2", "inner"]


async def test_hooks_hear_of_every_move_that_servers_make(storage, registry, serve) -> None:
    moves: defaultdict[str, list[str]] = defaultdict(list)
    registry.register("divide", lambda a, b: a / b)

    @registry.on_state_change
    async def note(job, old, new) -> None:
        moves[job.id].append(f"{old} {new}")

    @registry.on_state_change
    def fail(job, old, new) -> None:
        raise RuntimeError("not my day")

    servers = [await serve(retry=RetryPolicy.fixed(0), shutdown_timeout=5) for _ in range(2)]
    good, bad = [Job("divide", [n, 2]) for n in range(50)], [Job("divide", [n, 0], max_retries=1) for n in range(50)]
    await run(storage, *good, *bad)
    for server in servers:
        await server.stop()
    for job in good:
        assert moves[job.id] == ["enqueued processing", "processing succeeded"]
    once = ["enqueued processing", "processing awaiting_retry"]
    for job in bad:
        assert sorted(moves[job.id]) == sorted([*once, "enqueued processing", "processing failed"])
