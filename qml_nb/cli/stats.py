"""`qml-nb stats`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from msgspec import to_builtins

from qml_nb.cli.place import KeyPrefix, SchemaName, TableName, Url, given, is_postgres
from qml_nb.cli.saying import give_up, say
from qml_nb.config import QueueConfig, without_password
from qml_nb.errors import StorageUnavailable
from qml_nb.loops import run
from qml_nb.measure.health import LIVE_WITHIN, complaint
from qml_nb.measure.storage_reading import read_storage
from qml_nb.states import JobState
from qml_nb.storage import storage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qml_nb.measure.storage_reading import QueueReading, ScheduleReading, ServerReading, StorageReading
    from qml_nb.storage.storage import Storage

_CLEAR = "\x1b[H\x1b[2J"
_FREE = QueueConfig()


def stats(
    url: Url,
    queue: Annotated[str | None, typer.Option(help="Only what is about this queue.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line each time.")] = False,
    watch: Annotated[float | None, typer.Option(min=0.1, help="Again every so many seconds, until Ctrl-C.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Print nothing but what is wrong: a probe.")] = False,
    max_waiting: Annotated[int | None, typer.Option(min=0, help="With --check: how many jobs may wait.")] = None,
    max_age: Annotated[
        float | None, typer.Option(min=0, help="With --check: how many seconds a job may have waited.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="With --check: the name, or the host, of the server that must be live.")
    ] = None,
    schema_name: SchemaName = None,
    table_name: TableName = None,
    key_prefix: KeyPrefix = None,
) -> None:
    """Show what a storage holds: jobs, bounds and pauses by queue, servers, schedules.

    With --check it is a probe: it ends with status 0 if the storage answers, a
    server is live (its heartbeat is younger than 30 s), and the bounds hold;
    else with status 1, and a line on stderr that says why.

    Examples:

        qml-nb stats redis://localhost

        qml-nb stats postgresql://app@db/app --queue email --watch 2

        qml-nb stats redis://localhost --json

        qml-nb stats redis://localhost --check --max-waiting 10000 --max-age 60

        qml-nb stats redis://localhost --check --name "$HOSTNAME"
    """
    bounds = {"max_waiting": max_waiting, "max_age": max_age, "server": name}
    if not check and any(value is not None for value in bounds.values()):
        give_up("--max-waiting, --max-age and --name are bounds of --check; add it")
    options: dict[str, Any] = given(schema_name=schema_name, table_name=table_name, key_prefix=key_prefix)
    # Who only looks makes no tables.
    storage = storage_of(url, **options, **({"auto_migrate": False} if is_postgres(url) else {}))
    if check:
        run(_check(storage, queue, bounds))
    with suppress(KeyboardInterrupt):
        run(_show(storage, without_password(url), queue, watch, as_json))


async def _check(storage: Storage, queue: str | None, bounds: dict[str, Any]) -> NoReturn:
    async with storage:
        wrong = await complaint(storage, queue=queue, **bounds)
    if wrong is not None:
        say(f"qml-nb: {shown(wrong)}")
    raise typer.Exit(0 if wrong is None else 1)


async def _show(storage: Storage, place: str, queue: str | None, watch: float | None, as_json: bool) -> None:
    async with storage:
        while True:
            try:
                reading = await read_storage(storage, queue)
                text = as_line(place, reading) if as_json else "\n".join(as_page(place, reading))
            except StorageUnavailable as error:
                if watch is None:
                    raise
                say(f"qml-nb: {error}")
            else:
                clear = _CLEAR if watch is not None and not as_json and sys.stdout.isatty() else ""
                typer.echo(clear + text)
            if watch is None:
                return
            await asyncio.sleep(watch)


def as_line(place: str, reading: StorageReading) -> str:
    """Return it as JSON on one line."""
    return json.dumps({"storage": place, **to_builtins(reading)})


def as_page(place: str, reading: StorageReading) -> Iterator[str]:
    """Yield it line by line, for people."""
    yield f"{place} at {_instant(reading.ts)}"
    yield from ("", *_table(_queue_rows(reading.queues))) if reading.queues else ("", "no jobs")
    yield from ("", *_table(_server_rows(reading.servers))) if reading.servers else ("", "no servers")
    if reading.schedules:
        yield from ("", *_table(_schedule_rows(reading.schedules, reading.ts)))


def _queue_rows(queues: Sequence[QueueReading]) -> Iterator[tuple[str, ...]]:
    states = [state.value for state in JobState]
    yield ("queue", *(f">{state}" for state in states), ">next waits", "")
    for each in queues:
        counts = (f"{each.jobs.get(state, 0):,}" for state in states)
        age = "" if each.next_age_seconds is None else span(each.next_age_seconds)
        yield (shown(each.queue), *counts, age, ", ".join(_remarks(each)))


def _remarks(queue: QueueReading) -> Iterator[str]:
    if queue.paused:
        yield "paused"
    for name, value in to_builtins(queue.config).items():
        if value != getattr(_FREE, name):
            yield f"{name}={value}"


def _server_rows(servers: Sequence[ServerReading]) -> Iterator[tuple[str, ...]]:
    yield ("server", "where", ">slots", "queues", ">up for", ">heartbeat", "")
    for each in servers:
        age = each.heartbeat_age_seconds
        yield (
            shown(each.server_id),
            f"{shown(each.host)} ({each.pid})",
            str(each.worker_count),
            shown(", ".join(each.queues)) or "all",
            span(each.uptime_seconds),
            f"{span(age)} ago",
            "" if age < LIVE_WITHIN else "NOT LIVE",
        )


def _schedule_rows(schedules: Sequence[ScheduleReading], ts: float) -> Iterator[tuple[str, ...]]:
    yield ("schedule", "cron", "time zone", "method", "queue", "next", "last")
    for each in schedules:
        text = (each.schedule_id, each.cron, each.timezone, each.method, each.queue)
        last = "never" if each.last_ts is None else _instant(each.last_ts)
        yield (*map(shown, text), _next(each, ts), last)


def _next(schedule: ScheduleReading, ts: float) -> str:
    if not schedule.enabled:
        return "paused"
    due = schedule.next_ts
    return "unknown" if due is None else f"{_instant(due)} (in {span(due - ts)})"


def _table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Align columns: to the right where the head begins with >."""
    head, *body = rows
    names = [name.removeprefix(">") for name in head]
    widths = [max(map(len, column)) for column in zip(names, *body, strict=True)]
    aligned = [str.rjust if name.startswith(">") else str.ljust for name in head]
    for row in (names, *body):
        cells = (align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def shown(text: str) -> str:
    r"""Return text from a storage as a terminal may print it.

    >>> shown("mail \x1b[31m")
    'mail \\x1b[31m'
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def span(seconds: float) -> str:
    """Say how long that is.

    >>> span(0.25), span(75), span(5400), span(200_000), span(-3)
    ('0.2 s', '75 s', '90 min', '56 h', '0 s')
    """
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length and not (unit == "d" and seconds < 3 * length):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{max(seconds, 0):.0f} s"


def _instant(ts: float) -> str:
    return f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%d %H:%M:%S} UTC"
