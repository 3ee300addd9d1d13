"""What a server elsewhere tells waits until its pool takes it, and takes no more room meanwhile."""

from __future__ import annotations

from msgspec.structs import replace

from qml_nb.server.hosted import Outbox, Started, Told, decode_news
from qml_nb.server.telemetry import Snapshot, TaskCount


def shot(ts: float, run: dict[int, int], *tasks: TaskCount) -> Told:
    snapshot = Snapshot("mailer#1", ts, 10, 3, 0, 100, 90, 0, 0, 0, 0)
    return Told(replace(snapshot, phases={"run": run}, tasks=tasks))


def test_snapshots_that_nobody_takes_become_one_and_count_every_job_once() -> None:
    outbox = Outbox()
    outbox.put(Started())
    outbox.put(shot(1.0, {5: 2}, TaskCount("mail", "send", 2, 0, 1, 30)))
    outbox.put(shot(2.0, {5: 1, 7: 4}, TaskCount("mail", "send", 3, 1, 0, 12), TaskCount("slow", "report", 1, 0, 0, 5)))
    started, told = (decode_news(news) for news in outbox.take())
    assert started == Started()
    assert isinstance(told, Told)
    assert told.snapshot.ts == 2.0
    assert told.snapshot.phases == {"run": {5: 3, 7: 4}}
    assert told.snapshot.tasks == (TaskCount("mail", "send", 5, 1, 1, 42), TaskCount("slow", "report", 1, 0, 0, 5))
    assert outbox.take() == []


def test_a_snapshot_that_was_taken_is_not_told_again() -> None:
    outbox = Outbox()
    outbox.put(shot(1.0, {5: 2}))
    outbox.take()
    outbox.put(shot(2.0, {7: 1}))
    [news] = outbox.take()
    assert decode_news(news) == shot(2.0, {7: 1})
