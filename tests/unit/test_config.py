"""Options: frozen, keyword-only, each checked when it is made."""

import dataclasses
import inspect
import pickle
import re
from typing import Any

import pytest

from qml_nb.config import MemoryConfig, Options, PostgresConfig, QueueConfig, ServerConfig
from qml_nb.errors import InvalidValue, UnknownOption
from qml_nb.storage import MemoryStorage, open_storage

KINDS = [MemoryConfig, PostgresConfig, QueueConfig, ServerConfig]
FIRST = {MemoryConfig: [], PostgresConfig: ["database_url"], QueueConfig: [], ServerConfig: ["server_name"]}
"""What may stand without its name."""
KEEPERS: list[type[Options]] = [MemoryConfig, PostgresConfig]
TTLS = ("completed_job_ttl", "failed_job_ttl")
WAITS = ("connect_timeout", "command_timeout", "max_lifetime")
IDENTIFIERS = ("schema_name", "table_name")
GOOD_URLS = [
    "postgres://h",
    "postgresql://",
    "postgresql:///d?host=/run",
    "postgresql://u:p%40@h:5432/d?sslmode=require",
]
GOOD: list[tuple[type[Options], str, Any]] = [
    *[(kind, "max_jobs", value) for kind in KEEPERS for value in (1, 2**62, None)],
    *[(kind, "max_finished_jobs", value) for kind in KEEPERS for value in (0, 2**62, None)],
    *[(kind, ttl, value) for kind in KEEPERS for ttl in TTLS for value in (0.001, 5.0, None)],
    *[(PostgresConfig, "database_url", url) for url in GOOD_URLS],
    *[(PostgresConfig, "listen_dsn", url) for url in ("postgresql://h", None)],
    *[(PostgresConfig, "max_connections", value) for value in (1, 10_000)],
    *[(PostgresConfig, "min_connections", value) for value in (0, 20)],
    *[(PostgresConfig, "statement_cache_size", value) for value in (0, 100_000)],
    *[(PostgresConfig, name, 0.001) for name in (*WAITS, "idle_timeout")],
    (PostgresConfig, "idle_timeout", 0.0),
    *[(PostgresConfig, name, value) for name in IDENTIFIERS for value in ("a", "_a1", "x" * 40)],
    *[(PostgresConfig, name, value) for name in ("auto_migrate", "require_ssl") for value in (True, False)],
    *[(PostgresConfig, "synchronous_commit", value) for value in (True, False, None)],
    *[(QueueConfig, name, value) for name in ("concurrency", "max_waiting") for value in (1, 2**31 - 1, None)],
    *[(QueueConfig, "rate", value) for value in (1e-9, 0.5, 3, 1e9, None)],
    *[(QueueConfig, "burst", value) for value in (1, 1_000_000)],
    *[(QueueConfig, "when_full", value) for value in ("reject", "block", "drop_oldest")],
    *[(ServerConfig, "server_name", value) for value in ("a", "ü" * 255)],
    *[(ServerConfig, count, value) for count in ("worker_count", "fetch_batch_size") for value in (1, 100_000)],
    *[(ServerConfig, name, 0.001) for name in ("polling_interval", "lease", "scheduler_poll_interval", "job_timeout")],
    *[(ServerConfig, "shutdown_timeout", value) for value in (0.0, 60.0)],
    (ServerConfig, "job_timeout", None),
    *[(ServerConfig, "queues", value) for value in ((), ("a",), ("b", "a"), {"b": 2.0, "a": 0.5})],
    *[(ServerConfig, "queue_order", value) for value in ("priority", "strict")],
    *[(ServerConfig, "telemetry_interval", value) for value in (0.001, None)],
    *[(ServerConfig, "progress_interval", value) for value in (0.0, 60.0)],
    *[(ServerConfig, "process_count", value) for value in (1, 10_000, None)],
]
NO_SECONDS = [True, "5", float("nan"), float("inf"), -1, 1e300, [5]]
NO_URLS = [5, b"postgresql://h", "", "h", "redis://h", "postgresql+asyncpg://h", "postgresql://h:port/d"]
NO_URLS += ["postgresql://[::1/d", "postgresql://u:a/b@h/d", "postgresql://u@h,g:x/d"]
NO_IDENTIFIERS = ["", None, 5, "A", "a-b", "1a", "a b", 'a"', "a.b", "ü", "x" * 41, "a\n"]
BAD: list[tuple[type[Options], str, Any]] = [
    *[(kind, "max_jobs", value) for kind in KEEPERS for value in (0, -1, 1.0, "1", True, 2**62 + 1)],
    *[(kind, "max_finished_jobs", value) for kind in KEEPERS for value in (-1, 0.0, "0", False)],
    *[(kind, ttl, value) for kind in KEEPERS for ttl in TTLS for value in (0, *NO_SECONDS)],
    *[(PostgresConfig, "database_url", value) for value in (None, *NO_URLS)],
    *[(PostgresConfig, "listen_dsn", value) for value in NO_URLS],
    *[(PostgresConfig, "max_connections", value) for value in (0, -1, 10_001, 2.5, "5", True, None)],
    *[(PostgresConfig, "min_connections", value) for value in (-1, 21, 2.5, "5", True, None)],
    *[(PostgresConfig, "statement_cache_size", value) for value in (-1, 100_001, 2.5, "5", True, None)],
    *[(PostgresConfig, name, value) for name in WAITS for value in (0, None, *NO_SECONDS)],
    *[(PostgresConfig, "idle_timeout", value) for value in (None, *NO_SECONDS)],
    *[(PostgresConfig, name, value) for name in IDENTIFIERS for value in NO_IDENTIFIERS],
    *[(PostgresConfig, name, value) for name in ("auto_migrate", "require_ssl") for value in (1, "yes", None)],
    *[(PostgresConfig, "synchronous_commit", value) for value in (1, "off")],
    *[
        (QueueConfig, name, value)
        for name in ("concurrency", "max_waiting")
        for value in (0, -1, 2.5, "5", True, 2**31)
    ],
    *[(QueueConfig, "rate", value) for value in (0, -1, 1e-10, 1e10, "5", True, float("nan"), float("inf"), 10**400)],
    *[(QueueConfig, "burst", value) for value in (0, -1, 2.5, None, True, 1_000_001)],
    *[(QueueConfig, "when_full", value) for value in ("", "drop", None, 5, ["reject"])],
    *[(ServerConfig, "server_name", value) for value in ("", None, 5, "a\0", "x" * 256)],
    *[
        (ServerConfig, name, value)
        for name in ("worker_count", "fetch_batch_size")
        for value in (0, -1, 2.5, None, True, 100_001)
    ],
    *[(ServerConfig, name, value) for name in ("polling_interval", "lease") for value in (0, None, *NO_SECONDS)],
    *[(ServerConfig, "scheduler_poll_interval", value) for value in (0, None, *NO_SECONDS)],
    *[(ServerConfig, "shutdown_timeout", value) for value in (None, *NO_SECONDS)],
    *[(ServerConfig, "job_timeout", value) for value in (0, *NO_SECONDS)],
    *[(ServerConfig, "queues", value) for value in ("email", [""], [5], 5, ["a", "b\0"])],
    *[(ServerConfig, "queue_order", value) for value in ("weighted", "", None, 5)],
    *[(ServerConfig, "telemetry_interval", value) for value in (0, *NO_SECONDS)],
    *[(ServerConfig, "progress_interval", value) for value in (None, *NO_SECONDS)],
    *[(ServerConfig, "process_count", value) for value in (0, 2.5, "5", True, 10_001)],
]


def options_of(kind: Any) -> list[str]:
    """What can be given, in order."""
    return [field.name for field in dataclasses.fields(kind) if field.init]


@pytest.mark.parametrize(("kind", "name", "value"), GOOD)
def test_a_good_value_is_kept(kind: Any, name: str, value: Any) -> None:
    assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_a_bad_value_is_refused_by_name(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match=f"^expected {name} to ") as refusal:
        kind(**{name: value})

    assert refusal.value.field == name


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_good_and_a_bad_value_here(kind: Any) -> None:
    for cases in (GOOD, BAD):
        assert {name for of, name, _ in cases if of is kind} == set(options_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_explained(kind: Any) -> None:
    explained = re.findall(r"^ {4}(\w+(?:, \w+)*): ", inspect.getdoc(kind) or "", re.MULTILINE)

    assert [name for names in explained for name in names.split(", ")] == options_of(kind)


@pytest.mark.parametrize(
    ("kind", "wrong", "meant"),
    [
        (MemoryConfig, "max_job", "max_jobs"),
        (MemoryConfig, "ttl_completed_job", "completed_job_ttl"),
        (PostgresConfig, "max_connection", "max_connections"),
        (PostgresConfig, "table", "table_name"),
        (PostgresConfig, "ssl", "require_ssl"),
        (QueueConfig, "concurency", "concurrency"),
        (QueueConfig, "max_waitin", "max_waiting"),
        (ServerConfig, "worker_cout", "worker_count"),
        (ServerConfig, "queue", "queues"),
    ],
)
def test_an_unknown_option_says_which_one_was_meant(kind: Any, wrong: str, meant: str) -> None:
    with pytest.raises(UnknownOption, match=f"^{kind.__name__} has no option '{wrong}', did you mean '{meant}'\\?"):
        kind(**{wrong: 5})


@pytest.mark.parametrize("kind", KINDS)
def test_options_do_not_change_and_survive_copying(kind: Any) -> None:
    config = kind()
    name = options_of(kind)[-1]

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 5)
    assert pickle.loads(pickle.dumps(config)) == dataclasses.replace(config) == config
    assert hash(config) == hash(kind())
    with pytest.raises(InvalidValue):
        dataclasses.replace(config, **{name: -1})


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_given_by_name(kind: Any) -> None:
    by_position = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert by_position == FIRST[kind]


def test_whole_seconds_become_floats_and_queues_a_tuple() -> None:
    config = ServerConfig(lease=5, queues=["b", "a", "b"])

    assert (type(config.lease), config.queues) == (float, ("b", "a"))


def test_weights_are_those_of_the_queues_and_survive_copying() -> None:
    config = ServerConfig(queues={"mail": 3, "bulk": 0.5})

    assert tuple(config.queues) == ("mail", "bulk")
    for twin in (config, dataclasses.replace(config, worker_count=3), pickle.loads(pickle.dumps(config))):
        assert twin.weights == {"mail": 3.0, "bulk": 0.5}
    assert (ServerConfig().weights, ServerConfig(queues={}).queues) == (None, ())


@pytest.mark.parametrize("weight", [0, -1, True, "3", float("nan"), float("inf"), None])
def test_a_bad_weight_is_refused_by_the_name_of_its_queue(weight: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^expected queues\['bulk'\] to be a number from 1e-9 to 1e9"):
        ServerConfig(queues={"mail": 1, "bulk": weight})


@pytest.mark.parametrize("queues", [(), {"mail": 3, "bulk": 1}])
def test_a_strict_order_needs_a_list_of_queues(queues: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^expected queues to be .* where queue_order is strict"):
        ServerConfig(queues=queues, queue_order="strict")


# -- a config, or options, not both


def test_a_storage_takes_a_config_or_its_options() -> None:
    config = MemoryConfig(max_jobs=5)

    assert MemoryStorage(config).backend.config == MemoryStorage(max_jobs=5).backend.config == config  # type: ignore[attr-defined]


def test_both_at_once_are_refused() -> None:
    with pytest.raises(InvalidValue, match="expected max_jobs to stand in the MemoryConfig, got 5; give a config or"):
        MemoryStorage(MemoryConfig(), max_jobs=5)


def test_a_config_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidValue, match="expected config to be a MemoryConfig"):
        MemoryStorage(ServerConfig())  # type: ignore[arg-type]


# -- a URL


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("memory://", {}),
        ("memory:", {}),
        ("memory://?max_jobs=5", {"max_jobs": 5}),
        (
            "memory://?completed_job_ttl=2.5&failed_job_ttl=none&max_jobs=7",
            {"completed_job_ttl": 2.5, "failed_job_ttl": None, "max_jobs": 7},
        ),
    ],
)
async def test_a_url_opens_a_storage_with_its_options(url: str, options: dict[str, Any]) -> None:
    async with await open_storage(url) as storage:
        assert storage.backend.config == MemoryConfig(**options)  # type: ignore[attr-defined]


async def test_options_may_stand_beside_the_url() -> None:
    async with await open_storage("memory://", max_jobs=5) as storage:
        assert storage.backend.config == MemoryConfig(max_jobs=5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url", ["", "memory", "memory://host", "memory://host/path", "mysql://localhost", None, 5, b"memory://"]
)
async def test_another_url_is_refused(url: Any) -> None:
    with pytest.raises(InvalidValue, match="expected url to be a storage's URL"):
        await open_storage(url)


@pytest.mark.parametrize("query", ["max_jobs", "max_jobs=many", "max_jobs=", "max_jobs=5&", "=5&x"])
async def test_options_of_a_url_are_numbers(query: str) -> None:
    with pytest.raises(InvalidValue, match="expected url to have options as name=number, or none"):
        await open_storage(f"memory://?{query}")


async def test_a_bad_or_unknown_option_in_a_url_is_refused() -> None:
    with pytest.raises(InvalidValue, match="expected max_jobs to be at least 1, got 0"):
        await open_storage("memory://?max_jobs=0")
    with pytest.raises(UnknownOption, match=r"did you mean 'max_jobs'\?"):
        await open_storage("memory://?max_job=5")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://joe:a:b@host/db",
        "postgresql://joe:s%40%2F@[::1]:5432/db?sslmode=require&application_name=",
        "postgresql://one:5432,two/db?target_session_attrs=read-write",
        "postgresql:///db?host=/run/postgresql",
        "postgresql://joe@%2Frun%2Fpostgresql/db",
    ],
)
def test_a_url_that_postgresql_reads_is_taken(url: str) -> None:
    assert PostgresConfig(url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://joe:hush/hush@host/db",
        "postgresql://joe:hush#hush@host/db",
        "postgresql://joe:hush?hush@host/db",
        "postgresql://joe:hush@hush@host/db",
        "postgresql://joe:hush@host:port/db",
        "postgresql://joe:hush@[::1/db",
        "postgresql://joe:hush@host/db?sslmode",
    ],
)
def test_a_url_that_nobody_could_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidValue, match=r"with @ / [?] # in a password as %40 %2F %3F %23") as caught:
        PostgresConfig(url)
    assert "hush" not in str(caught.value)
