"""Asking servers, and waiting for what they do. Every bound only ends a test that hangs."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LONG = 30.0


def ask(url: str, *command: str | int, timeout: float = LONG) -> Any:
    """Return the answer to one command, on a connection of its own."""
    once = Retry(NoBackoff(), 0)
    with Redis.from_url(url, decode_responses=True, retry=once, socket_timeout=timeout) as client:
        return client.execute_command(*command)


def until(true: Callable[[], object]) -> None:
    """Return once the condition holds."""
    deadline = monotonic() + LONG
    while not true():
        assert monotonic() < deadline, "it never happened"
        sleep(0.005)
