"""How a job lies in Redis: a body that moves never touch, and a head that the scripts write.

The layouts of both are stated where the scripts read them, in `shared.lua`.
"""

from __future__ import annotations

from functools import lru_cache
from math import isnan, nan
from struct import Struct
from typing import Any

from msgspec import msgpack
from msgspec.structs import replace

from qml_nb.config import FULL, QueueConfig
from qml_nb.job import Extras, Job, restore
from qml_nb.states import ENQUEUED, JobState

STATES = tuple(JobState)
"""A state is its place here, as the scripts number them."""
NUMBER = {state: b"%d" % number for number, state in enumerate(STATES)}

_PREFIX = Struct(">iIH")  # priority, retries, length of the queue's name
_HEAD = Struct(">BI5dH")  # state, attempt, claim, run, started, finished, expires, length of the queue's name
_LENGTH = Struct(">H")
_SECONDS = Struct(">d")
_LIMITS = Struct(">4dB")  # concurrency, rate, burst, max_waiting (0: no bound), when_full
_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(tuple[bytes, bytes, float | None, bytes, str | None, float]).decode
_decode_with_extras = msgpack.Decoder(tuple[bytes, bytes, float | None, bytes, str | None, float, Extras]).decode
_SEVEN = 0x97  # how an array of so many begins in msgpack
_NEVER_MOVED = (ENQUEUED, 0, None, None, None, None, None, None, None, None, 0)
_KEPT = 1_000
_ID_LENGTH = 36


def pack_id(job_id: str) -> bytes | None:
    """Return an id as 16 bytes, which sort as the text does; None for what is no id.

    >>> pack_id("01a20c92-9c76-7e14-8436-424e4cbc1f07").hex(), pack_id("no such id")
    ('01a20c929c767e148436424e4cbc1f07', None)
    """
    if len(job_id) != _ID_LENGTH:
        return None
    try:
        packed = bytes.fromhex(job_id.replace("-", ""))
    except ValueError:
        return None
    return packed if unpack_id(packed) == job_id else None


def unpack_id(packed: bytes) -> str:
    """Return 16 bytes as the id that they are."""
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_of(job: Job) -> bytes:
    """Return a job's id as 16 bytes; it was checked when the job was made."""
    return bytes.fromhex(job.id.replace("-", ""))


@lru_cache(_KEPT)
def _names(queue: str, method: str) -> tuple[int, bytes]:
    queue_bytes, method_bytes = queue.encode(), method.encode()
    return len(queue_bytes), queue_bytes + _LENGTH.pack(len(method_bytes)) + method_bytes


@lru_cache(_KEPT)
def _text(name: bytes) -> str:
    return name.decode()


def pack_body(job: Job) -> bytes:
    """Return what its caller says of a job, its id apart."""
    length, names = _names(job.queue, job.method)
    said = (job.args_json, job.kwargs_json, job.timeout, job.metadata_json, job.job_type, job.created_ts)
    rest = _encode(said if job.extras is None else (*said, job.extras))
    return _PREFIX.pack(job.priority, job.max_retries, length) + names + rest


def pack_key(job: Job) -> bytes:
    """Return a job's unique key, and for how long it is taken, as the scripts read it; nothing if it has none."""
    if job.extras is None or job.extras.unique_key is None:
        return b""
    seconds = job.extras.unique_for
    return _SECONDS.pack(nan if seconds is None else seconds) + job.extras.unique_key.encode()


def with_key(job: Job, packed: bytes) -> Job:
    """Return the job with another unique key, as `pack_key` has it."""
    key, seconds = None, None
    if packed:
        key, seconds = packed[_SECONDS.size :].decode(), _known(*_SECONDS.unpack_from(packed))
    extras = Extras(key, seconds, job.retry)
    return replace(job, extras=None if extras == Extras() else extras)


def unpack_job(packed_id: bytes, body: bytes, head: bytes, lease: bytes = b"", progress: bytes = b"") -> Job:
    """Put a job together from what a script answered."""
    said, extras = _unpack_body(packed_id, body)
    if not head and extras is None:
        return restore(*said)
    moved = _unpack_head(head, lease) if head else _NEVER_MOVED
    return restore(*said, *moved, extras, progress or None)


def claimed_job(
    packed_id: bytes, body: bytes, head: bytes, worker: str, now: float, lease: float, claim_id: int
) -> Job:
    """Put a job together that was just claimed; `head` is what it had before."""
    attempt, run, result, error = 1, None, None, None
    if head:
        _, before, run, _, _, _, _, result, error, _, _ = _unpack_head(head, b"")
        attempt += before
    said, extras = _unpack_body(packed_id, body)
    moved = (JobState.PROCESSING, attempt, run, worker, now + lease, now, None, result, error, None, claim_id)
    return restore(*said, *moved, extras)


def _unpack_body(packed_id: bytes, body: bytes) -> tuple[tuple[Any, ...], Extras | None]:
    """Return the fields up to `created_ts`, and the extras."""
    priority, retries, length = _PREFIX.unpack_from(body)
    queue_end = _PREFIX.size + length
    method_at = queue_end + 2
    method_end = method_at + _number(body, queue_end, 2)
    extras = None
    if body[method_end] == _SEVEN:
        args, kwargs, timeout, metadata, job_type, created, extras = _decode_with_extras(body[method_end:])
    else:
        args, kwargs, timeout, metadata, job_type, created = _decode(body[method_end:])
    queue, method = _text(body[_PREFIX.size : queue_end]), _text(body[method_at:method_end])
    job_id = unpack_id(packed_id)
    return (job_id, method, args, kwargs, queue, priority, retries, timeout, metadata, job_type, created), extras


def _unpack_head(head: bytes, lease: bytes) -> tuple[Any, ...]:
    """Return the fields from `state` on."""
    state, attempt, claim, run, started, finished, expires, length = _HEAD.unpack_from(head)
    worker_at = _HEAD.size + length + 2  # the queue's name lies between, which the body has as well
    result_at = worker_at + _number(head, worker_at - 2, 2) + 4
    error_at = result_at + _number(head, result_at - 4, 4) + 1
    return (
        STATES[state],
        attempt,
        _known(run),
        _text(head[worker_at : result_at - 4]) or None,
        float(lease) if lease else None,
        _known(started),
        _known(finished),
        head[result_at : error_at - 1] or None,
        head[error_at:].decode() if head[error_at - 1] else None,
        _known(expires),
        int(claim),
    )


def _number(packed: bytes, at: int, length: int) -> int:
    return int.from_bytes(packed[at : at + length])


def _known(value: float) -> float | None:
    """Return None for what is not a number: so the scripts write what is not known."""
    return None if isnan(value) else value


def pack_limits(limits: QueueConfig) -> bytes:
    """Return what a queue may do as the scripts read it."""
    numbers = (limits.concurrency, limits.rate, limits.burst, limits.max_waiting)
    return _LIMITS.pack(*(number or 0 for number in numbers), FULL.index(limits.when_full))


def unpack_limits(packed: bytes) -> QueueConfig:
    """Return what a queue may do."""
    concurrency, rate, burst, most, when_full = _LIMITS.unpack(packed)
    bounds = {"concurrency": int(concurrency) or None, "max_waiting": int(most) or None}
    return QueueConfig(rate=rate or None, burst=int(burst), when_full=FULL[when_full], **bounds)
