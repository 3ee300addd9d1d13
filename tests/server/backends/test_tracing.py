"""One trace from who enqueues a job to what the job does, wherever it runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import cloudpickle
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from qml_nb import InvalidJob, InvalidValue, Job, JobState, Retry, RetryPolicy
from qml_nb.server.context import job_context
from qml_nb.tracing import TracedRuns, instrument
from tests.server.waiting import ended, run, until


class Traces:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    async def get(self, name: str, many: int = 1) -> list[ReadableSpan]:
        await until(lambda: len(self.named(name)) >= many)
        return self.named(name)


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def traced(storage, registry, traces) -> Iterator[Callable[[], None]]:
    """Storage and registry are instrumented; gives what ends that."""
    end = instrument(storage=storage, registry=registry, tracer_provider=traces.provider)
    yield end
    end()


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_trace_goes_from_the_caller_through_the_queue_into_the_task(
    storage, registry, serve, traces, traced, is_async
) -> None:
    def work() -> None:
        with traces.tracer.start_as_current_span("inner"):
            pass

    async def work_async() -> None:
        work()

    registry.register("work", work_async if is_async else work)
    server = await serve(queues=["q"])
    with traces.tracer.start_as_current_span("request") as request:
        job = Job("work", queue="q", metadata={"mine": 1})
        await storage.enqueue(job)
    [stored] = await ended(storage, job)

    [sent], [ran], [inner] = [await traces.get(name) for name in ("enqueue work", "run work", "inner")]
    assert len({span.context.trace_id for span in (sent, ran, inner)} | {request.get_span_context().trace_id}) == 1
    assert sent.parent.span_id == request.get_span_context().span_id
    assert ran.parent.span_id == sent.context.span_id
    assert inner.parent.span_id == ran.context.span_id
    assert (sent.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert stored.metadata["mine"] == 1
    assert stored.metadata["traceparent"].startswith(f"00-{sent.context.trace_id:032x}-{sent.context.span_id:016x}-")
    assert job.metadata == {"mine": 1}
    shared = {"messaging.system": "qml_nb", "messaging.destination.name": "q", "messaging.message.id": job.id}
    for span in (sent, ran):
        assert shared.items() <= dict(span.attributes).items()
    assert ran.attributes["qml.job.attempt"] == 1
    assert ran.attributes["qml.job.outcome"] == "succeeded"
    assert ran.attributes["messaging.client.id"] == server.server_id
    assert ran.status.status_code is StatusCode.UNSET


async def test_each_run_of_a_job_that_fails_is_a_span_with_its_exception(
    storage, registry, serve, traces, traced
) -> None:
    @registry.task
    async def work() -> None:
        if job_context().attempt == 1:
            raise Retry(0)
        raise ValueError("no such address")

    await serve(retry=RetryPolicy.fixed(0), scheduler_poll_interval=0.01)
    [job] = await run(storage, Job("work", max_retries=2))
    assert job.state is JobState.FAILED
    spans = await traces.get("run work", 3)
    assert [span.attributes["qml.job.attempt"] for span in spans] == [1, 2, 3]
    assert [span.attributes["qml.job.outcome"] for span in spans] == ["retry", "failed", "failed"]
    assert [span.status.status_code for span in spans] == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.ERROR]
    assert [[event.attributes["exception.message"] for event in span.events] for span in spans] == [
        *([], ["no such address"], ["no such address"])
    ]
    assert len({span.context.trace_id for span in spans}) == 1


async def test_a_run_that_is_cut_off_says_why(storage, registry, serve, traces, traced) -> None:
    registry.register("nap", asyncio.sleep)
    await serve()
    late, cancelled = Job("nap", [60], timeout=0.05), Job("nap", [60])
    await storage.enqueue_many([late, cancelled])
    await until(lambda: traces.named("run nap"))
    await storage.cancel(cancelled.id)
    spans = {span.attributes["messaging.message.id"]: span for span in await traces.get("run nap", 2)}
    assert spans[late.id].attributes["qml.job.outcome"] == "timeout"
    assert spans[late.id].status.status_code is StatusCode.ERROR
    assert spans[cancelled.id].attributes["qml.job.outcome"] == "lost"
    assert spans[cancelled.id].status.status_code is StatusCode.UNSET


async def test_a_batch_and_a_scheduled_job_carry_their_spans_too(storage, registry, serve, traces, traced) -> None:
    registry.register("one", lambda: None)
    registry.register("two", lambda: None)
    await serve(scheduler_poll_interval=0.01)
    batch, later = [Job("one"), Job("one"), Job("two")], Job("two")
    assert await storage.enqueue_many(batch) == 3
    assert await storage.schedule(later, delay=0.01) is True
    await ended(storage, *batch, later)
    [mixed], [scheduled] = traces.named("enqueue"), traces.named("enqueue two")
    assert mixed.attributes["messaging.batch.message_count"] == 3
    parents = {}
    for span in [*await traces.get("run one", 2), *await traces.get("run two", 2)]:
        parents[span.attributes["messaging.message.id"]] = span.parent.span_id
    assert [parents[job.id] for job in batch] == [mixed.context.span_id] * 3
    assert parents[later.id] == scheduled.context.span_id


async def test_the_face_without_await_is_traced_as_well(storage, traces, traced) -> None:
    with traces.tracer.start_as_current_span("request") as request:
        await asyncio.to_thread(storage.sync.enqueue, Job("work"))
    [sent] = await traces.get("enqueue work")
    assert sent.parent.span_id == request.get_span_context().span_id


async def test_what_a_job_enqueues_lies_below_its_run(storage, registry, serve, traces, traced) -> None:
    @registry.task
    async def outer() -> None:
        await storage.enqueue(Job("within"))

    registry.register("within", lambda: None)
    await serve()
    await storage.enqueue(Job("outer"))
    [ran], [sent], [last] = [await traces.get(name) for name in ("run outer", "enqueue within", "run within")]
    assert sent.parent.span_id == ran.context.span_id
    assert last.context.trace_id == ran.context.trace_id


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"traceparent": "nonsense"},
        {"traceparent": 7, "tracestate": ["x"]},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"traceparent": "00-" + "a" * 31 + "-" + "b" * 16 + "-01", "baggage": "x" * 100_000},
    ],
)
async def test_a_job_without_a_trace_begins_one(storage, registry, serve, traces, metadata) -> None:
    registry.register("work", lambda: None)
    end = instrument(registry=registry, tracer_provider=traces.provider)
    with traces.tracer.start_as_current_span("of whoever started the server"):
        await serve()
    [job] = await run(storage, Job("work", metadata=metadata))
    assert job.state is JobState.SUCCEEDED
    [ran] = await traces.get("run work")
    assert ran.parent is None
    end()


async def test_what_is_no_job_is_refused_as_ever(storage, traces, traced) -> None:
    for call in (storage.enqueue, storage.schedule, lambda bad: storage.enqueue_many([bad])):
        with pytest.raises((InvalidJob, InvalidValue)) as refusal:
            await call("work", **({"delay": 1} if call == storage.schedule else {}))
        assert "to be a Job" in str(refusal.value)


async def test_it_ends_without_a_trace(storage, registry, serve, traces, traced) -> None:
    seen: list[bool] = []
    registry.register("work", lambda: seen.append(get_current_span().is_recording()))
    await serve()
    traced()
    traced()
    [job] = await run(storage, Job("work"))
    assert "traceparent" not in job.metadata
    assert seen == [False]
    assert not registry.chain
    assert not {"enqueue", "enqueue_many", "schedule"} & vars(storage).keys()


async def test_to_instrument_twice_is_to_instrument_once(storage, registry, serve, traces, traced) -> None:
    instrument(storage=storage, registry=registry, tracer_provider=traces.provider)
    registry.register("work", lambda: None)
    await serve()
    [_] = await run(storage, Job("work"))
    await traces.get("run work")
    assert [len(traces.named(name)) for name in ("enqueue work", "run work")] == [1, 1]


def test_a_registry_with_tracing_reaches_other_processes(registry, traces) -> None:
    instrument(registry=registry, tracer_provider=traces.provider)
    [traced] = cloudpickle.loads(cloudpickle.dumps(registry)).chain
    assert isinstance(traced, TracedRuns)


def test_something_must_be_instrumented() -> None:
    with pytest.raises(InvalidValue, match="storage or registry"):
        instrument()


def test_without_instrumentation_none_of_it_is_imported() -> None:
    code = "import sys, qml_nb, qml_nb.cli; print('qml_nb.tracing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import qml_nb.tracing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "PackageMissing: opentelemetry-api is not installed; try: pip install 'qml-nb[tracing]'" in done.stderr
