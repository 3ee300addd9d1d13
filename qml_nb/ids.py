"""Job ids: uuid7 text that sorts by the instant of creation, made by the client in well under a microsecond."""

from __future__ import annotations

import os
from itertools import count
from time import time_ns

_NS_PER_MS = 1_000_000
# A call would have to come 2**47 times in one process before the 48-bit tail could overflow.
_TAIL_BITS = 47
_LAST_MS = (1 << 48) - 1


class _Stream:
    """One process's stream of ids: a random middle part, and a tail that only grows."""

    __slots__ = ("head", "middle", "ms", "next_tail")

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Begin a new stream; a forked child that went on with its parent's would make the same ids."""
        bits = int.from_bytes(os.urandom(10), "big")
        self.next_tail = count(bits & ((1 << _TAIL_BITS) - 1)).__next__
        rand_a, rand_b = (bits >> 48) & 0xFFF, (bits >> 60) & 0x3FFF
        self.middle = f"-7{rand_a:03x}-{0x8000 | rand_b:04x}-"
        self.ms = -1
        self.head = ""

    def tick(self, ms: int) -> str:
        """Start a new millisecond; the clock may step back, ids may not."""
        self.ms = ms = max(ms, self.ms)
        self.head = head = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}{self.middle}"
        return head


_stream = _Stream()

if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_stream.start_over)


def new_id() -> str:
    """Make a uuid7 as text (RFC 9562): unique over threads, forks and machines, ascending within one process.

    The tail is one counter for all threads, so two threads that meet in one millisecond still differ;
    74 random bits a process keep processes apart.

    >>> first, second = new_id(), new_id()
    >>> first < second, len(first), first[14]
    (True, 36, '7')
    """
    stream = _stream
    ms = time_ns() // _NS_PER_MS
    head = stream.head if ms == stream.ms else stream.tick(ms)
    return f"{head}{stream.next_tail():012x}"


def first_id_at(ts: float) -> str:
    """Return what is not above any uuid7 of that millisecond (POSIX seconds), and above all of those before.

    >>> first_id_at(1_700_000_000.5)
    '018bcfe5-69f4-7000-8000-000000000000'
    """
    ms = min(max(int(ts * 1_000), 0), _LAST_MS)
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-000000000000"
