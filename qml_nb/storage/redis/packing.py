"""How a job lies in Redis: a body that moves never touch, and a head that the scripts write.

The layouts of both are stated where the scripts read them, in `shared.lua`.
"""

from __future__ import annotations

from functools import lru_cache
from math import isnan
from struct import Struct
from typing import Any

from msgspec import msgpack

from qml_nb.job import Job, JobState, restore

STATES = tuple(JobState)
"""A state is its place here, as the scripts number them."""
NUMBER = {state: b"%d" % number for number, state in enumerate(STATES)}

_PREFIX = Struct(">iIH")  # priority, retries, length of the queue's name
_HEAD = Struct(">BI5dH")  # state, attempt, claim, run, started, finished, expires, length of the queue's name
_LENGTH = Struct(">H")
_REST = tuple[bytes, bytes, float | None, bytes, str | None, float]
_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(_REST).decode
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
    rest = _encode(
        (job.args_json, job.kwargs_json, job.timeout, job.metadata_json, job.job_type, job.created_ts),
    )
    return _PREFIX.pack(job.priority, job.max_retries, length) + names + rest


def unpack_job(packed_id: bytes, body: bytes, head: bytes, lease: bytes = b"") -> Job:
    """Put a job together from what a script answered."""
    said = _unpack_body(packed_id, body)
    return restore(*said, *_unpack_head(head, lease)) if head else restore(*said)


def claimed_job(
    packed_id: bytes, body: bytes, head: bytes, worker: str, now: float, lease: float, claim_id: int
) -> Job:
    """Put a job together that was just claimed; `head` is what it had before."""
    attempt, run, result, error = 1, None, None, None
    if head:
        _, before, run, _, _, _, _, result, error, _, _ = _unpack_head(head, b"")
        attempt += before
    said = _unpack_body(packed_id, body)
    moved = (JobState.PROCESSING, attempt, run, worker, now + lease, now, None, result, error, None, claim_id)
    return restore(*said, *moved)


def _unpack_body(packed_id: bytes, body: bytes) -> tuple[Any, ...]:
    """Return the fields up to `created_ts`."""
    priority, retries, length = _PREFIX.unpack_from(body)
    queue_end = _PREFIX.size + length
    method_at = queue_end + 2
    method_end = method_at + _number(body, queue_end, 2)
    args, kwargs, timeout, metadata, job_type, created = _decode(body[method_end:])
    queue, method = _text(body[_PREFIX.size : queue_end]), _text(body[method_at:method_end])
    return unpack_id(packed_id), method, args, kwargs, queue, priority, retries, timeout, metadata, job_type, created


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
