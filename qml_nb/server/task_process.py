"""A process that runs tasks, one call at a time: what runs in it. `qml_nb.server.processes` is the server's end."""

from __future__ import annotations

import os
import sys
from contextvars import copy_context
from threading import Event, Lock, Thread
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from qml_nb.errors import InvalidValue, Retry
from qml_nb.job import Job  # noqa: TC001, msgspec reads the annotations at run time
from qml_nb.retry import kinds_of
from qml_nb.server import context
from qml_nb.server.copying import loads
from qml_nb.server.error_text import describe
from qml_nb.server.lifeline import HEAD, framed, hold_on
from qml_nb.server.run import NS, Run
from qml_nb.validate import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from socket import socket

    from qml_nb.job import Report
    from qml_nb.server.progress import Reports

_PROGRESS_PAUSE = 0.05


class Call(Struct, frozen=True):
    """Run this job."""

    job: Job
    seconds_left: float
    function: bytes | None
    """What is registered under its method, by cloudpickle; None if the process knows it."""


class Told(Struct, tag=True, frozen=True):
    """The job tells how far it is."""

    progress_json: bytes


class Returned(Struct, tag=True, frozen=True):
    """It returned this."""

    result_json: bytes


class Unfit(Struct, tag=True, frozen=True):
    """It returned what is no JSON, as this error says."""

    text: str


class Raised(Struct, tag=True, frozen=True):
    """It raised this; with `retry`, it asks to be run again, after `delay` seconds if that is set."""

    text: str
    kinds: frozenset[str]
    retry: bool
    delay: float | None


Answer: TypeAlias = Told | Returned | Unfit | Raised
encode: Final = Encoder().encode
decode_answer: Final[Callable[[bytes], Answer]] = Decoder(Answer).decode
_decode_call: Final = Decoder(Call).decode
_decode_path: Final = Decoder(list[str]).decode


class _Speech:
    """What goes to the server, from any thread."""

    def __init__(self, end: socket) -> None:
        self._end = end
        self._lock = Lock()
        self._speaker = os.getpid()

    def say(self, answer: Answer) -> None:
        if os.getpid() == self._speaker:  # one that a task forked has nothing to say: it would answer for its parent
            with self._lock:
                self._end.sendall(framed(encode(answer)))


class _Progress:
    """Sends on what a job tells: the newest at most twenty times a second, and the last one in any case."""

    def __init__(self, speech: _Speech) -> None:
        self._speech = speech
        self._newest: Report | None = None
        self._lock = Lock()
        self._there = Event()
        self._sender: Thread | None = None

    def put(self, report: Report) -> None:
        """See `Reports.put`."""
        with self._lock:
            self._newest = report
            if self._sender is None:
                self._sender = Thread(target=self._send, name="progress", daemon=True)
                self._sender.start()
        self._there.set()

    def flush(self) -> None:
        with self._lock:
            if self._newest is not None:
                self._speech.say(Told(self._newest.progress_json))
            self._newest = None

    def _send(self) -> None:
        while self._there.wait():
            self._there.clear()
            self.flush()
            sleep(_PROGRESS_PAUSE)


class _Tasks:
    """Runs calls, with the functions that it was sent."""

    def __init__(self, progress: _Progress) -> None:
        self._progress = progress
        self._packed: dict[str, bytes] = {}
        self._functions: dict[str, Callable[..., Any]] = {}
        context.reports.set(cast("Reports", progress))

    def answer(self, call: Call) -> Answer:
        """Run a job, and return what it came to, whatever that is."""
        job, now = call.job, perf_counter_ns()
        run = Run(job, now, now, now + call.seconds_left * NS)
        context.running.set(run)
        try:
            function = self._function(call)
            result = copy_context().run(function, *job.args, **job.kwargs)  # what one job sets, the next doesn't see
        except BaseException as error:
            return _raised(error)
        finally:
            run.ended = perf_counter_ns()
            self._progress.flush()
        try:
            return Returned(encode_json("result", result))
        except InvalidValue as error:
            return Unfit(describe(error))

    def _function(self, call: Call) -> Callable[..., Any]:
        name = call.job.method
        if call.function is not None:
            self._packed[name] = call.function
        if name not in self._functions:  # once more at each call, where it can't be read
            self._functions[name] = loads(self._packed[name])
        return self._functions[name]


def _raised(error: BaseException) -> Raised:
    """Put an error into words, without the frame of ours that called the task."""
    own = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    delay = error.delay if isinstance(error, Retry) else None
    return Raised(describe(own), kinds_of(error), isinstance(error, Retry), delay)


def _messages(end: socket) -> Iterator[bytes]:
    with end.makefile("rb") as stream:
        while head := stream.read(HEAD):
            yield stream.read(int.from_bytes(head, "big"))


def main() -> None:
    """Run tasks for the server at the other end of the pipe, until it lets go of it."""
    with hold_on() as end:
        speech, messages = _Speech(end), _messages(end)
        sys.path[:] = _decode_path(next(messages))
        tasks, own = _Tasks(_Progress(speech)), os.getpid()
        for message in messages:
            answer = tasks.answer(_decode_call(message))
            if os.getpid() != own:  # a task forked and let both return: the next calls are not for the second one
                os._exit(0)
            speech.say(answer)
