"""The registry: names, what they stand for, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest

from qml_nb import InvalidValue, RetryPolicy, UnknownMethod, WorkerRegistry


async def send() -> None: ...


def plain() -> None: ...


def test_a_task_is_found_under_its_function_s_name_or_the_one_given() -> None:
    registry = WorkerRegistry()
    assert registry.task(send) is send
    assert registry.task("mail.send")(send) is send
    assert registry.task()(plain) is plain
    assert list(registry) == ["send", "mail.send", "plain"]
    assert "mail.send" in registry
    assert "mail" not in registry
    assert len(registry) == 3
    assert registry.find("mail.send").run is send
    assert repr(registry) == "WorkerRegistry('mail.send', 'plain', 'send')"


def test_a_task_knows_whether_it_runs_on_the_loop() -> None:
    class Async:
        async def __call__(self) -> None: ...

        async def method(self) -> None: ...

        @staticmethod
        async def static() -> None: ...

        @classmethod
        async def of_class(cls) -> None: ...

    registry = WorkerRegistry()
    awaited = [send, Async(), Async().method, Async.static, Async.of_class, partial(send), partial(partial(send))]
    for function in awaited:
        registry.register("task", function)
        assert registry.find("task").is_async, function
    for function in (plain, print, Async, partial(plain), lambda: None):
        registry.register("task", function)
        assert not registry.find("task").is_async, function


def test_a_task_keeps_its_policy() -> None:
    registry = WorkerRegistry()
    policy = RetryPolicy.fixed(5)
    registry.task(retry=policy)(send)
    registry.task("other", retry=policy)(send)
    registry.register("third", send)
    assert [registry.find(name).retry for name in ("send", "other", "third")] == [policy, policy, None]


def test_the_last_one_registered_under_a_name_counts() -> None:
    registry = WorkerRegistry()
    registry.register("task", send, retry=RetryPolicy.fixed(5))
    registry.register("task", plain)
    task = registry.find("task")
    assert (task.run, task.is_async, task.retry) == (plain, False, None)
    assert len(registry) == 1


@pytest.mark.parametrize(
    ("name", "function", "retry", "message"),
    [
        ("task", "print", None, "expected function to be callable, got 'print'"),
        ("task", None, None, "expected function to be callable, got None"),
        ("task", send, 3, "expected retry to be a RetryPolicy, got 3; write RetryPolicy.exponential()"),
        ("", send, None, "expected name to be a name, got ''"),
        (5, send, None, "expected name to be text, got 5"),
        ("x" * 256, send, None, "expected name to have at most 255 characters"),
        ("nul\0", send, None, "expected name to have no NUL character"),
    ],
)
def test_what_can_not_be_a_task_is_refused(name, function, retry, message) -> None:
    registry = WorkerRegistry()
    with pytest.raises(InvalidValue) as raised:
        registry.register(name, function, retry=retry)
    assert str(raised.value).startswith(message)
    assert len(registry) == 0


def test_a_callable_without_a_name_must_be_given_one() -> None:
    registry = WorkerRegistry()
    with pytest.raises(InvalidValue, match="name"):
        registry.task(partial(send))
    registry.task("named")(partial(send))
    assert list(registry) == ["named"]


def test_an_unknown_method_says_which_one_was_meant() -> None:
    registry = WorkerRegistry()
    registry.register("send_email", send)
    with pytest.raises(UnknownMethod, match="did you mean 'send_email'"):
        registry.find("send_mail")
    with pytest.raises(LookupError, match=r"no task is registered for method 'zzz'; register it with @registry.task"):
        registry.find("zzz")
