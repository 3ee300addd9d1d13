"""The options of the Redis storage: each is checked when it is given."""

import dataclasses
import inspect
import pickle
import re
from typing import Any

import pytest

from qml_nb.config import MemoryConfig, RedisConfig
from qml_nb.errors import InvalidValue, UnknownOption
from qml_nb.storage import RedisStorage

GOOD: list[tuple[str, Any]] = [
    *[("url", value) for value in ("redis://h", "unix:///s")],
    *[("pool_size", value) for value in (1, 10_000)],
    *[(name, value) for name in ("connection_timeout", "command_timeout") for value in (0.001, 60.0)],
    *[("key_prefix", value) for value in ("a", "ü:*?[]", "x" * 255)],
    *[("database", value) for value in (0, 15, None)],
    *[("username", value) for value in ("joe", None)],
    *[("password", value) for value in ("secret", "", "p w\n@", "x" * 5_000, None)],
    *[("tls", value) for value in (True, False, None)],
    *[("max_jobs", value) for value in (1, 2**62, None)],
    *[("max_finished_jobs", value) for value in (0, 2**62, None)],
    *[(ttl, value) for ttl in ("completed_job_ttl", "failed_job_ttl") for value in (0.001, 5.0, None)],
]
NO_SECONDS = [True, "5", float("nan"), float("inf"), -1, 0, 1e300, [5]]
BAD: list[tuple[str, Any]] = [
    *[("url", value) for value in (None, 5, b"redis://h", "", "h")],
    *[("pool_size", value) for value in (0, -1, 10_001, 2.5, "5", True, None)],
    *[(name, value) for name in ("connection_timeout", "command_timeout") for value in (None, *NO_SECONDS)],
    *[("key_prefix", value) for value in ("", " ", None, 5, "a{b", "}", "a\0", "x" * 256)],
    *[("database", value) for value in (-1, "0", 1.0, True)],
    *[("username", value) for value in ("", 5, b"joe")],
    *[("password", value) for value in (5, b"secret")],
    *[("tls", value) for value in (1, "yes")],
    *[("max_jobs", value) for value in (0, -1, 1.0, "1", True, 2**62 + 1)],
    *[("max_finished_jobs", value) for value in (-1, 0.0, "0", False)],
    *[(ttl, value) for ttl in ("completed_job_ttl", "failed_job_ttl") for value in NO_SECONDS],
]
OPTIONS = [field.name for field in dataclasses.fields(RedisConfig)]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_good_value_is_kept(name: str, value: Any) -> None:
    assert getattr(RedisConfig(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match=f"^expected {name} to ") as refusal:
        RedisStorage(**{name: value})

    assert refusal.value.field == name


def test_every_option_has_a_good_and_a_bad_value_here() -> None:
    for cases in (GOOD, BAD):
        assert {name for name, _ in cases} == set(OPTIONS)


def test_every_option_is_explained() -> None:
    explained = re.findall(r"^ {4}(\w+(?:, \w+)*): ", inspect.getdoc(RedisConfig) or "", re.MULTILINE)

    assert [name for names in explained for name in names.split(", ")] == OPTIONS


@pytest.mark.parametrize(
    ("wrong", "meant"), [("poolsize", "pool_size"), ("prefix", "key_prefix"), ("timeout", "command_timeout")]
)
def test_an_unknown_option_says_which_one_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownOption, match=f"^RedisConfig has no option '{wrong}', did you mean '{meant}'\\?"):
        RedisStorage(**{wrong: 5})


def test_options_do_not_change_and_survive_copying() -> None:
    config = RedisConfig("redis://h", password="secret")

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.pool_size = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == dataclasses.replace(config) == config


def test_a_url_may_stand_first_and_nothing_else() -> None:
    by_position = [
        p.name for p in inspect.signature(RedisConfig).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]

    assert by_position == ["url"]


def test_the_repr_shows_what_was_changed() -> None:
    assert repr(RedisConfig()) == "RedisConfig()"
    assert repr(RedisConfig(pool_size=5, database=3)) == "RedisConfig(pool_size=5, database=3)"


def test_a_password_is_not_shown_when_it_is_refused() -> None:
    with pytest.raises(InvalidValue) as refusal:
        RedisConfig(password=b"secret")  # type: ignore[arg-type]

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "redis+cluster://h", "database": 5}, "expected database to be 0 or None, got 5; a cluster has"),
        ({"url": "unix:///s", "tls": True}, "expected tls to be False or None, got True; nothing encrypts"),
    ],
)
def test_options_that_do_not_go_with_the_url_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        RedisStorage(**options)


def test_a_config_or_its_options_not_both() -> None:
    with pytest.raises(InvalidValue, match="expected pool_size to stand in the RedisConfig, got 5"):
        RedisStorage(RedisConfig(), pool_size=5)
    with pytest.raises(InvalidValue, match="expected config to be a RedisConfig"):
        RedisStorage(MemoryConfig())  # type: ignore[arg-type]
