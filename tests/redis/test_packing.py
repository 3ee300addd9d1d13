"""How a job lies in Redis: whatever it holds comes back, and ids sort as their texts do."""

import struct
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qml_nb.config import FULL, QueueConfig
from qml_nb.ids import new_id
from qml_nb.job import Job
from qml_nb.retry import RetryPolicy
from qml_nb.states import JobState
from qml_nb.storage.redis.packing import (
    NUMBER,
    STATES,
    claimed_job,
    id_of,
    pack_body,
    pack_id,
    pack_key,
    pack_limits,
    unpack_id,
    unpack_job,
    unpack_limits,
    with_key,
)
from tests.clock import NOW

INT32 = 2**31
UINT32 = 2**32

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=255).filter(str.strip)
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
instants = st.floats(0, 1e11)
uuids = st.uuids().map(str)
seconds = st.floats(0.001, 1e6)
policies = st.builds(
    RetryPolicy.exponential,
    seconds,
    cap=seconds,
    give_up_on=st.lists(names, max_size=2),
    retry_on=st.lists(names, max_size=2),
)
keys = st.builds(lambda key, unique_for: {"unique_key": key, "unique_for": unique_for}, names, st.none() | seconds)
jobs = st.builds(
    lambda *arguments, key, **options: Job(*arguments, **key, **options),
    names,
    st.lists(json, max_size=4),
    st.dictionaries(texts, json, max_size=4),
    queue=names,
    priority=st.integers(-INT32, INT32 - 1),
    max_retries=st.integers(0, INT32 - 1),
    timeout=st.none() | st.floats(0.001, 1e6),
    metadata=st.dictionaries(texts, texts, max_size=4),
    job_type=st.none() | names,
    key=st.just({}) | keys,
    retry=st.none() | policies,
)


def head_of(job: Job) -> bytes:
    """A head as the scripts pack it: `HEAD` in `shared.lua`, and the error after it."""
    nan = float("nan")
    instants = [nan if value is None else value for value in (job.run_ts, job.started_ts, job.finished_ts)]
    expires = nan if job.expires_ts is None else job.expires_ts
    queue, worker = job.queue.encode(), (job.worker_id or "").encode()
    result, error = job.result_json or b"", (job.error or "").encode()
    packed = struct.pack(">BI5d", int(NUMBER[job.state]), job.attempt, job.claim_id, *instants, expires)
    for form, part in (("H", queue), ("H", worker), ("I", result)):
        packed += struct.pack(f">{form}", len(part)) + part
    return packed + struct.pack("B", job.error is not None) + error


@st.composite
def moved_jobs(draw: Any) -> Job:
    """A job with any history at all."""
    job = draw(jobs)
    moved = {
        "state": draw(st.sampled_from(JobState)),
        "attempt": draw(st.integers(0, UINT32 - 1)),
        "worker_id": draw(st.none() | names),
        "result_json": draw(st.none() | json.map(msgspec.json.encode)),
        "error": draw(st.none() | texts),
        "claim_id": draw(st.integers(0, 2**53)),
        "progress_json": draw(st.none() | json.map(msgspec.json.encode)),
    }
    moved |= {name: draw(st.none() | instants) for name in ("run_ts", "started_ts", "finished_ts", "expires_ts")}
    return msgspec.structs.replace(job, **moved)


def fields(job: Job) -> dict[str, Any]:
    """Every stored field."""
    return {name: getattr(job, name) for name in job.__struct_fields__}


@given(jobs)
def test_a_new_job_comes_back_in_every_field(job: Job) -> None:
    assert fields(unpack_job(id_of(job), pack_body(job), b"")) == fields(job)


@given(moved_jobs(), st.none() | instants)
def test_a_moved_job_comes_back_in_every_field(job: Job, lease: float | None) -> None:
    packed_lease = b"" if lease is None else b"%.17g" % lease

    again = unpack_job(id_of(job), pack_body(job), head_of(job), packed_lease, job.progress_json or b"")

    assert fields(again) == {**fields(job), "lease_ts": lease}


@given(moved_jobs(), names, instants, st.floats(0.001, 1e6), st.integers(1, 2**53))
def test_a_claimed_job_is_what_a_look_at_it_would_show(
    job: Job, worker: str, now: float, lease: float, claim_id: int
) -> None:
    job = msgspec.structs.replace(job, state=JobState.ENQUEUED, attempt=job.attempt % 100)
    claimed = claimed_job(id_of(job), pack_body(job), head_of(job), worker, now, lease, claim_id)

    looked_at = unpack_job(id_of(job), pack_body(job), head_of(claimed), b"%.17g" % (now + lease))
    assert fields(claimed) == fields(looked_at)
    assert (claimed.state, claimed.attempt, claimed.worker_id) == (JobState.PROCESSING, job.attempt + 1, worker)


def test_every_field_of_a_job_is_kept() -> None:
    """A field that is added later is not forgotten: the tests above set those that there are."""
    set_above = {*fields(Job("work"))} - {"id", "created_ts"}

    assert set_above == {
        *("method", "args_json", "kwargs_json", "queue", "priority", "max_retries", "timeout", "metadata_json"),
        *("job_type", "state", "attempt", "run_ts", "worker_id", "lease_ts", "started_ts", "finished_ts"),
        *("result_json", "error", "expires_ts", "claim_id", "extras", "progress_json"),
    }


@pytest.mark.parametrize("job_type", [None, "kind"])
@pytest.mark.parametrize("length", [1, 255])
def test_the_longest_names_fit(job_type: str | None, length: int) -> None:
    job = Job("𝄞" * length, queue="ü" * length, job_type=job_type)

    assert fields(unpack_job(id_of(job), pack_body(job), b"")) == fields(job)


def test_a_plain_job_takes_no_byte_for_what_it_has_not() -> None:
    job = Job("send", [1, "two", 3.5], queue="mail", priority=-7, max_retries=2, created_at=NOW)

    assert pack_body(job) == (
        b"\xff\xff\xff\xf9\0\0\0\x02\0\x04mail\0\x04send"
        b'\x96\xc4\r[1,"two",3.5]\xc4\x02{}\xc0\xc4\x02{}\xc0\xcbA\xdc6\xf6 \0\0\0'
    )


# -- unique keys


@given(jobs)
def test_a_key_is_packed_for_the_scripts_where_there_is_one(job: Job) -> None:
    packed = pack_key(job)

    assert bool(packed) == (job.unique_key is not None)
    assert with_key(Job("work", retry=job.retry), packed).extras == job.extras


# -- what queues may do

bounds = st.none() | st.integers(1, INT32 - 1)


@given(bounds, st.none() | st.floats(1e-6, 1e9), st.integers(1, 1_000_000), bounds, st.sampled_from(FULL))
def test_what_a_queue_may_do_comes_back(
    concurrency: int | None, rate: float | None, burst: int, most: int | None, when_full: str
) -> None:
    limits = QueueConfig(concurrency=concurrency, rate=rate, burst=burst, max_waiting=most, when_full=when_full)

    assert unpack_limits(pack_limits(limits)) == limits


# -- ids


@given(uuids)
def test_an_id_comes_back(job_id: str) -> None:
    packed = pack_id(job_id)

    assert packed == UUID(job_id).bytes
    assert unpack_id(packed) == job_id


@given(st.lists(uuids, min_size=2))
def test_ids_sort_as_their_texts_do(texts: list[str]) -> None:
    packed = [pack_id(text) or b"" for text in texts]

    assert [unpack_id(each) for each in sorted(packed)] == sorted(texts)


def test_new_ids_sort_by_age() -> None:
    made = [new_id() for _ in range(1_000)]

    assert sorted(made, key=lambda job_id: pack_id(job_id) or b"") == made


@given(st.text(max_size=40) | uuids.map(str.upper).filter(lambda text: text != text.lower()))
def test_what_is_no_id_is_none(text: str) -> None:
    assert pack_id(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01a20c929c767e148436424e4cbc1f07",
        "{01a20c92-9c76-7e14-8436-424e4cbc1f07}",
        "01a20c92-9c76-7e14-8436-424e4cbc1f0",
        "01a20c929-c76-7e14-8436-424e4cbc1f07",
        "01A20C92-9c76-7e14-8436-424e4cbc1f07",
        "g1a20c92-9c76-7e14-8436-424e4cbc1f07",
        " 1a20c92-9c76-7e14-8436-424e4cbc1f07",
        "٠1a20c92-9c76-7e14-8436-424e4cbc1f07",
    ],
)
def test_what_looks_nearly_like_an_id_is_none(text: str) -> None:
    assert pack_id(text) is None


# -- states


def test_every_state_has_the_number_that_the_scripts_give_it() -> None:
    assert [state.value for state in STATES] == [
        *("enqueued", "processing", "scheduled", "awaiting_retry", "succeeded", "failed", "deleted")
    ]
    assert all(STATES[int(number)] is state for state, number in NUMBER.items())
