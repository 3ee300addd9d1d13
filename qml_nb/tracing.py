"""Traces with OpenTelemetry: from whoever enqueues a job to the run of it, wherever that is. Needs the extra `tracing`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec import MsgspecError
from msgspec.structs import replace

from qml_nb.errors import InvalidValue, PackageMissing, Retry
from qml_nb.job import Job
from qml_nb.validate import encode_json

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError:
    raise PackageMissing("opentelemetry-api", "tracing") from None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from opentelemetry.trace import Span, Tracer, TracerProvider

    from qml_nb.server.context import JobContext
    from qml_nb.server.registry import WorkerRegistry
    from qml_nb.storage.storage import Storage

_WRAPPED: Final = ("enqueue", "enqueue_many", "schedule")


def instrument(
    *,
    storage: Storage | None = None,
    registry: WorkerRegistry | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Callable[[], None]:
    """Trace what comes in through the storage, what runs the tasks of the registry, or both. Returns what ends it.

    To enqueue makes a span "enqueue METHOD" (of kind PRODUCER), whose context travels in the job's metadata as
    `traceparent`, or as the propagators of OpenTelemetry are set to. A run makes a span "run METHOD" (CONSUMER) below it:
    with queue, job id, attempt, server and outcome, and with the exception that it raised. What the task does itself
    lies below that. A batch is one span, that all its jobs share.

    In worker processes the registry's spans go to the provider that is set there: `tracer_provider` stays here.

    Args:
        storage: where jobs are enqueued.
        registry: whose tasks are run.
        tracer_provider: where spans go; None for the one that is set with `opentelemetry.trace.set_tracer_provider`.
    """
    if storage is None and registry is None:
        raise InvalidValue("storage or registry", "to be given", None, "as instrument(storage=storage)")
    ends = [] if storage is None else [_trace_enqueuing(storage, _tracer(tracer_provider))]
    if registry is not None:
        ends.append(_trace_runs(registry, TracedRuns(tracer_provider)))

    def end() -> None:
        while ends:
            ends.pop()()

    return end


def _tracer(provider: TracerProvider | None) -> Tracer:
    return trace.get_tracer("qml_nb", tracer_provider=provider)


# -- jobs come in


def _trace_enqueuing(storage: Storage, tracer: Tracer) -> Callable[[], None]:
    def end() -> None:
        for name in _WRAPPED:
            vars(storage).pop(name, None)
            vars(storage.sync).pop(name, None)  # which has kept the method that it called before

    end()
    traced = _TracedEnqueuing(storage, tracer)
    for name in _WRAPPED:
        setattr(storage, name, getattr(traced, name))
    return end


class _TracedEnqueuing:
    """The methods of a storage by which jobs come in, each in a span. They take what those take."""

    def __init__(self, storage: Storage, tracer: Tracer) -> None:
        self._tracer = tracer
        self._enqueue, self._enqueue_many, self._schedule = (getattr(storage, name) for name in _WRAPPED)

    async def enqueue(self, job: Job) -> Any:
        with _enqueuing(self._tracer, [job]) as carrier:
            return await self._enqueue(_carrying(job, carrier))

    async def enqueue_many(self, jobs: Iterable[Job], **options: Any) -> Any:
        jobs = list(jobs)
        with _enqueuing(self._tracer, jobs) as carrier:
            return await self._enqueue_many([_carrying(job, carrier) for job in jobs], **options)

    async def schedule(self, job: Job, **options: Any) -> Any:
        with _enqueuing(self._tracer, [job]) as carrier:
            return await self._schedule(_carrying(job, carrier), **options)


@contextmanager
def _enqueuing(tracer: Tracer, jobs: Sequence[Job]) -> Iterator[dict[str, str]]:
    """Give what carries the context of the span. What is no job is left for the storage to refuse."""
    jobs = [job for job in jobs if isinstance(job, Job)]
    methods, queues = {job.method for job in jobs}, {job.queue for job in jobs}
    attributes: dict[str, Any] = {
        "messaging.system": "qml_nb",
        "messaging.operation.type": "send",
        "messaging.operation.name": "enqueue",
    }
    if len(queues) == 1:
        attributes["messaging.destination.name"] = min(queues)
    if len(jobs) == 1:
        attributes |= {"messaging.message.id": jobs[0].id, "qml.job.method": jobs[0].method}
    else:
        attributes["messaging.batch.message_count"] = len(jobs)
    name = f"enqueue {min(methods)}" if len(methods) == 1 else "enqueue"
    with tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        yield carrier


def _carrying(job: Any, carrier: dict[str, str]) -> Any:
    if not carrier or not isinstance(job, Job):
        return job
    return replace(job, metadata_json=encode_json("metadata", job.metadata | carrier))


# -- jobs run


def _trace_runs(registry: WorkerRegistry, traced: TracedRuns) -> Callable[[], None]:
    registry.chain[:] = [traced, *(each for each in registry.chain if not isinstance(each, TracedRuns))]

    def end() -> None:
        if traced in registry.chain:
            registry.chain.remove(traced)

    return end


class TracedRuns:
    """The middleware that makes a span of each run; the outermost, so that the time of the others is in it."""

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = _tracer(tracer_provider)

    def __reduce__(self) -> tuple[Any, ...]:
        return TracedRuns, ()

    async def __call__(self, job: Job, context: JobContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Run what comes after it in a span."""
        with self._tracer.start_as_current_span(
            f"run {job.method}",
            propagate.extract(_carrier(job), Context()),
            SpanKind.CONSUMER,
            _attributes(job),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                result = await call_next()
            except BaseException as error:
                with suppress(Exception):  # of an error that can't be shown
                    _note(span, error, context.cancel_reason)
                raise
            _end(span, context.cancel_reason or "succeeded")
            return result


def _carrier(job: Job) -> dict[str, str]:
    try:
        return {name: value for name, value in job.metadata.items() if isinstance(value, str)}
    except MsgspecError:
        return {}


def _attributes(job: Job) -> dict[str, Any]:
    return {
        "messaging.system": "qml_nb",
        "messaging.operation.type": "process",
        "messaging.operation.name": "run",
        "messaging.destination.name": job.queue,
        "messaging.message.id": job.id,
        "messaging.client.id": job.worker_id or "",
        "qml.job.method": job.method,
        "qml.job.attempt": job.attempt,
    }


def _note(span: Span, error: BaseException, cancelled: str | None) -> None:
    """Say how a run ended that raised: one that was asked to stop, or asks to run again, did nothing wrong."""
    if isinstance(error, Retry):
        _end(span, "retry")
    elif cancelled in ("stop", "lost"):
        _end(span, cancelled)
    else:
        _end(span, cancelled or "failed")
        span.set_status(Status(StatusCode.ERROR, cancelled or type(error).__name__))
        span.record_exception(error)


def _end(span: Span, outcome: str) -> None:
    span.set_attribute("qml.job.outcome", outcome)
