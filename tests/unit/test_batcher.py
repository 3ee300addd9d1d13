"""Group commit: many callers, few calls, and each gets what is its own."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from qml_nb.errors import StorageUnavailable
from qml_nb.storage.batcher import Batcher, Later, alone


class Verb:
    """A batch-first verb that takes its time: answers each number with its square, and refuses text."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, items: Sequence[Any]) -> list[int]:
        self.calls.append(list(items))
        await asyncio.sleep(0)
        await self.may_answer.wait()
        if any(isinstance(item, str) for item in items):
            raise ValueError(f"no number in {items}")
        return [item * item for item in items]


async def ended(tasks: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The answers and errors of tasks, within a bound that only a lost caller reaches."""
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)


async def under_way(batch: Batcher[Any, int], *items: Any) -> list[asyncio.Future[int]]:
    """Callers, one for each item, once the first call to the verb has begun."""
    tasks = [asyncio.ensure_future(batch(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_caller_makes_a_call_of_its_own_at_once() -> None:
    verb = Verb()
    batch = Batcher(verb)

    assert await batch(3) == 9
    assert await batch(4) == 16

    assert verb.calls == [[3], [4]]


async def test_callers_at_once_share_one_call_in_their_order() -> None:
    verb = Verb()
    batch = Batcher(verb)

    answers = await asyncio.gather(*(batch(number) for number in range(31)))

    assert answers == [number * number for number in range(31)]
    assert verb.calls == [list(range(31))]


async def test_many_callers_at_once_share_two_calls_that_are_under_way_together() -> None:
    verb = Verb()
    verb.may_answer.clear()
    batch = Batcher(verb)
    tasks = await under_way(batch, *range(501))
    await asyncio.sleep(0)
    assert verb.calls == [list(range(251)), list(range(251, 501))]

    verb.may_answer.set()

    assert await ended(tasks) == [number * number for number in range(501)]


async def test_those_who_come_again_after_each_answer_keep_two_calls_under_way() -> None:
    verb = Verb()
    batch = Batcher(verb)

    async def come_again() -> None:
        for number in range(10):
            await batch(number)

    await asyncio.gather(*(come_again() for _ in range(100)))

    assert [len(call) for call in verb.calls] == [50] * 20


async def test_what_a_caller_gets_may_stand_for_a_coroutine_and_for_a_future() -> None:
    batch = Batcher(Verb())

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task, other = group.create_task(batch(2)), asyncio.create_task(batch(3))
    assert (task.result(), await other) == (4, 9)
    assert await asyncio.wait_for(batch(4), 10) == 16
    assert await asyncio.shield(batch(5)) == 25
    assert asyncio.iscoroutine(batch(6))
    answer = batch(7)
    assert await answer == await answer == 49
    assert await asyncio.create_task(answer) == 49


async def test_an_error_and_a_cancellation_reach_whoever_waits_in_a_task() -> None:
    verb = Verb()
    batch = Batcher(verb)
    with pytest.raises(ValueError, match="no number in"):
        await asyncio.create_task(batch("bad"))
    verb.may_answer.clear()
    [task] = await under_way(batch, 1)
    waiting = asyncio.create_task(batch(2))
    await asyncio.sleep(0)

    waiting.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await waiting

    verb.may_answer.set()
    assert await task == 1
    assert verb.calls[-1] == [2]


async def test_gather_makes_no_task_of_a_call() -> None:
    batch = Batcher(Verb())
    calls = [batch(number) for number in range(10)]

    gathered = asyncio.gather(*calls)

    assert len(asyncio.all_tasks()) <= 2  # this one, and the call under way
    assert await gathered == [number * number for number in range(10)]


async def test_who_comes_while_two_calls_are_under_way_goes_with_the_next() -> None:
    verb = Verb()
    verb.may_answer.clear()
    batch = Batcher(verb)
    first, second = await under_way(batch, 1), await under_way(batch, 2)
    later = await under_way(batch, 3, 4, 5)
    assert verb.calls == [[1], [2]]

    verb.may_answer.set()

    assert await ended(first + second + later) == [1, 4, 9, 16, 25]
    assert verb.calls == [[1], [2], [3, 4, 5]]


async def test_of_callers_at_once_that_are_too_many_for_one_call_two_calls_are_under_way() -> None:
    verb = Verb()
    verb.may_answer.clear()
    batch = Batcher(verb, max_batch=2)
    tasks = await under_way(batch, *range(7))
    await asyncio.sleep(0)
    assert verb.calls == [[0, 1], [2, 3]]

    verb.may_answer.set()

    assert await ended(tasks) == [number * number for number in range(7)]
    assert verb.calls == [[0, 1], [2, 3], [4, 5], [6]]


async def test_a_bad_item_fails_its_own_caller_only() -> None:
    batch = Batcher(Verb())
    callers = [batch(1), batch("bad"), batch(3), batch("worse")]

    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert (answers[0], answers[2]) == (1, 9)
    assert str(answers[1]) == "no number in ['bad']"
    assert str(answers[3]) == "no number in ['worse']"


async def test_after_a_bad_item_batches_go_on() -> None:
    verb = Verb()
    batch = Batcher(verb)
    with pytest.raises(ValueError, match="no number in"):
        await batch("bad")

    assert await asyncio.gather(batch(1), batch(2)) == [1, 4]
    assert verb.calls == [["bad"], [1, 2]]


async def test_when_the_storage_is_away_everyone_hears_it_and_nothing_is_sent_again() -> None:
    calls = []

    async def verb(items: Sequence[int]) -> list[int]:
        calls.append(items)
        raise StorageUnavailable("no answer")

    batch = Batcher(verb)

    answers = await asyncio.gather(*(batch(number) for number in range(10)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [StorageUnavailable] * 10
    assert len(calls) == 1


async def test_a_cancelled_caller_harms_no_other() -> None:
    verb = Verb()
    verb.may_answer.clear()
    batch = Batcher(verb)
    in_flight = await under_way(batch, 1, 2)
    gathered = await under_way(batch, 3, 4)
    in_flight[0].cancel()
    gathered[1].cancel()
    await asyncio.sleep(0)

    verb.may_answer.set()

    [first, second, third, fourth] = await ended(in_flight + gathered)
    assert (second, third) == (4, 9)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(fourth, asyncio.CancelledError)


async def test_a_caller_cancelled_before_a_refused_batch_harms_no_other() -> None:
    verb = Verb()
    verb.may_answer.clear()
    batch = Batcher(verb)
    tasks = await under_way(batch, "bad", 2, "worse")
    tasks[0].cancel()

    verb.may_answer.set()

    answers = await ended(tasks)
    assert answers[1] == 4
    assert isinstance(answers[2], ValueError)


@pytest.mark.parametrize("many", [1, 10, 11, 35])
async def test_a_call_takes_no_more_than_max_batch(many: int) -> None:
    verb = Verb()
    batch = Batcher(verb, max_batch=10)

    await asyncio.gather(*(batch(number) for number in range(many)))

    assert all(len(call) <= 10 for call in verb.calls)
    assert [number for call in verb.calls for number in call] == list(range(many))
    assert len(verb.calls) == -(-many // 10)


async def test_a_verb_that_is_cancelled_from_within_lets_all_its_callers_go() -> None:
    fall = asyncio.Event()

    async def verb(items: Sequence[int]) -> list[int]:
        if 1 in items:
            await fall.wait()
            raise asyncio.CancelledError
        return list(items)

    batch = Batcher(verb)
    in_flight = await under_way(batch, 1, 1) + await under_way(batch, 1)
    gathered = await under_way(batch, 2)
    fall.set()

    answers = await ended(in_flight + gathered)

    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 4
    assert await batch(3) == 3


def test_callers_are_let_go_when_the_loop_shuts_down() -> None:
    async def leave_behind() -> list[asyncio.Future[Any]]:
        async def verb(items: Sequence[int]) -> list[int]:
            await asyncio.Event().wait()
            return list(items)

        batch = Batcher(verb)
        return [*await under_way(batch, 1, 2), *await under_way(batch, 3)]

    with asyncio.Runner() as runner:
        tasks = runner.run(leave_behind())

    assert all(task.cancelled() for task in tasks)


async def test_no_error_is_left_unseen_when_nobody_waits_any_more() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    verb = Verb()
    verb.may_answer.clear()
    [task] = await under_way(Batcher(verb), "bad")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    verb.may_answer.set()
    for _ in range(5):
        await asyncio.sleep(0)

    assert complaints == []


async def test_after_a_flight_that_was_cancelled_before_its_first_step_calls_go_on() -> None:
    batch = Batcher(Verb())
    lost = batch(1)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost

    assert await asyncio.wait_for(asyncio.gather(batch(2), batch(3)), 10) == [4, 9]


# -- answers that are no values


class Door:
    """A verb that lets in what it is told to, tells others to come again, and refuses text by the item."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.open_to: set[int] = set()

    async def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls.append(list(items))
        await asyncio.sleep(0)
        return [self.answer(item) for item in items]

    def answer(self, item: Any) -> Any:
        if isinstance(item, str):
            return ValueError(f"no number: {item}")
        return item * item if item in self.open_to else Later(0.001)


async def test_an_error_as_an_answer_is_raised_for_its_caller_and_nothing_is_sent_again() -> None:
    door = Door()
    door.open_to = {1, 3}
    batch = Batcher(door)

    answers = await asyncio.gather(*map(batch, [1, "bad", 3]), return_exceptions=True)

    assert (answers[0], answers[2]) == (1, 9)
    assert str(answers[1]) == "no number: bad"
    assert door.calls == [[1, "bad", 3]]


async def test_who_has_to_come_again_does_and_holds_up_no_other() -> None:
    door = Door()
    door.open_to = {1}
    batch = Batcher(door)
    first, second = batch(1), batch(2)

    assert await first == 1
    assert await batch(1) == 1
    assert not second.done()  # type: ignore[attr-defined]
    door.open_to = {2}

    assert await asyncio.wait_for(second, 10) == 4
    assert [1, 2] in door.calls
    assert door.calls[-1] == [2]


async def test_those_who_come_again_share_calls_with_new_ones() -> None:
    door = Door()
    batch = Batcher(door)
    waiting = [batch(number) for number in range(5)]
    while len(door.calls) < 3:
        await asyncio.sleep(0.001)

    door.open_to = set(range(5))

    assert await ended(waiting) == [0, 1, 4, 9, 16]  # type: ignore[arg-type]
    assert door.calls[0] == list(range(5))


async def test_a_caller_that_was_cancelled_does_not_come_again() -> None:
    door = Door()
    batch = Batcher(door)
    [gone] = await under_way(batch, 1)
    await asyncio.sleep(0)
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    calls = len(door.calls)

    await asyncio.sleep(0.005)

    assert len(door.calls) == calls


async def test_alone_it_does_the_same() -> None:
    door = Door()
    one = alone(door)
    door.open_to = {3}
    assert await one(3) == 9
    with pytest.raises(ValueError, match="no number: bad"):
        await one("bad")

    waiting = asyncio.create_task(one(2))  # type: ignore[arg-type]
    while door.calls.count([2]) < 2:
        await asyncio.sleep(0.001)
    door.open_to = {2}

    assert await asyncio.wait_for(waiting, 10) == 4
