"""`qml-nb work`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from traceback import format_exception
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qml_nb.cli.logs import Form, Level, log_on_stderr
from qml_nb.cli.place import KeyPrefix, SchemaName, TableName, Url, given
from qml_nb.cli.saying import give_up, say
from qml_nb.cli.shift import Shift, log
from qml_nb.config import ServerConfig, without_password
from qml_nb.errors import InvalidValue, QMLError
from qml_nb.server.finding import find_registry
from qml_nb.server.pool import WorkerPool
from qml_nb.storage import storage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from qml_nb.server.registry import WorkerRegistry

_DEFAULT = ServerConfig()
Order = Literal["priority", "strict"]


def work(
    url: Url,
    registry: Annotated[str, typer.Argument(help="The tasks, as module:registry; the current directory counts.")],
    queues: Annotated[
        str, typer.Option(help="The queues to serve, as critical,bulk; with shares, as critical=6,bulk=1.")
    ] = ",".join(_DEFAULT.queues),
    all_queues: Annotated[bool, typer.Option("--all-queues", help="Serve every queue that there is.")] = False,
    queue_order: Annotated[
        Order, typer.Option(help="priority: over all queues; strict: the first queue first.")
    ] = "priority",
    workers: Annotated[int, typer.Option(min=1, help="How many jobs run at a time.")] = _DEFAULT.worker_count,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Serve from so many processes, each with that many jobs at a time.")
    ] = None,
    task_processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes run tasks registered with process=True; else one a processor."),
    ] = None,
    name: Annotated[str, typer.Option(help="What lists and logs call it.")] = _DEFAULT.server_name,
    fetch_batch_size: Annotated[
        int, typer.Option(min=1, help="How many jobs one claim asks for.")
    ] = _DEFAULT.fetch_batch_size,
    lease: Annotated[
        float, typer.Option(help="Seconds after which the jobs of a server that died go to others.")
    ] = _DEFAULT.lease,
    job_timeout: Annotated[
        float, typer.Option(help="Seconds of run time for a job without a timeout of its own; 0 for no limit.")
    ] = _DEFAULT.job_timeout or 0.0,
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds that running jobs get to end when it stops.")
    ] = _DEFAULT.shutdown_timeout,
    polling_interval: Annotated[
        float, typer.Option(help="The longest wait, in seconds, between two looks at an empty queue.")
    ] = _DEFAULT.polling_interval,
    wait: Annotated[bool, typer.Option(help="Wait for a storage that is away when it starts.")] = True,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Answer Prometheus at http://HOST:PORT/metrics; 0 for a free one."),
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Where, as 0.0.0.0 for every address.")] = "127.0.0.1",
    log_format: Annotated[
        Form | None, typer.Option(help="How lines on stderr look, if the application has no logs of its own.")
    ] = None,
    log_level: Annotated[Level | None, typer.Option(help="From which level on they are written.")] = None,
    schema_name: SchemaName = None,
    table_name: TableName = None,
    key_prefix: KeyPrefix = None,
) -> None:
    """Run the jobs of a storage, until it is told to stop.

    The first SIGTERM or SIGINT (Ctrl-C) stops it gracefully: it claims nothing
    more, hands back at once what has not started, and lets run what runs. The
    second one, or the end of --shutdown-timeout, cancels what still runs: that
    goes back to the queue too, and what does not heed it goes to others when
    its lease runs out.

    Ends with status 0 if all that ran has ended; with 143 after SIGTERM, or 130
    after SIGINT, if jobs were cancelled for it; with 1 for an error, and with 2
    for a wrong option. Lines on stderr say what it does.

    Under systemd: KillMode=mixed, and TimeoutStopSec= some seconds longer than
    --shutdown-timeout. In Kubernetes: terminationGracePeriodSeconds likewise,
    and as an exec probe, with timeoutSeconds: 10, what ends with status 1 when
    this server is not live: qml-nb stats URL --check --name "$HOSTNAME"

    Examples:

        qml-nb work redis://localhost app.tasks:registry

        qml-nb work postgresql://app@db/app app.tasks:registry --queues critical=6,bulk=1 --workers 50

        qml-nb work redis://localhost app.tasks:registry --all-queues --processes 4 --name mailer

        qml-nb work redis://localhost app.tasks:registry --log-format json --metrics-port 9464 --metrics-host 0.0.0.0
    """
    config = ServerConfig(
        name,
        queues=() if all_queues else _queues(queues),
        queue_order=queue_order,
        worker_count=workers,
        fetch_batch_size=fetch_batch_size,
        lease=lease,
        job_timeout=job_timeout or None,
        shutdown_timeout=shutdown_timeout,
        polling_interval=polling_interval,
        process_count=task_processes,
    )
    options = given(schema_name=schema_name, table_name=table_name, key_prefix=key_prefix)
    storage, tasks = storage_of(url, **options), _registry(registry)
    logs = partial(log_on_stderr, log_format, log_level)
    logs()
    where: dict[str, Any] = {"where": "process", "servers": processes, "initializer": logs} if processes else {}
    pool = WorkerPool(storage, tasks, config, **where)
    with _scraped(pool, metrics_host, metrics_port):
        raise typer.Exit(Shift(pool, without_password(url), wait=wait).run())


def _queues(text: str) -> Sequence[str] | Mapping[str, float]:
    """Read the names of queues, or their shares.

    >>> _queues("critical, bulk"), _queues("critical=6,bulk=0.5")
    (['critical', 'bulk'], {'critical': 6.0, 'bulk': 0.5})
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidValue("--queues", "to name a queue", text, "or write --all-queues")
    if "=" not in text:
        return names
    try:
        return {name: float(share) for name, share in (each.rsplit("=", 1) for each in names)}
    except ValueError:
        raise InvalidValue("--queues", "to have a share for each queue", text, "as in critical=6,bulk=1") from None


@contextmanager
def _scraped(pool: WorkerPool, host: str, port: int | None) -> Iterator[None]:
    """Answer Prometheus meanwhile, if there is a port for it."""
    if port is None:
        yield
        return
    from qml_nb.metrics import Metrics

    with Metrics(pool.storage).watch(pool) as metrics:
        try:
            port = metrics.serve(port, host)
        except OSError as error:
            give_up(f"no metrics at {host}:{port}: {error.strerror}")
        log.info("metrics at http://%s:%d/metrics", host, port)
        yield


def _registry(name: str) -> WorkerRegistry:
    """Find the registry; an error in the module that has it is shown as Python does, from the first line of that on."""
    sys.path.insert(0, os.getcwd())
    try:
        return find_registry(name)
    except Exception as error:
        theirs = _theirs(error)
        if theirs is None and isinstance(error, QMLError):
            raise
        say("".join(format_exception(type(error), error, theirs)).rstrip())
        say(f"qml-nb: {name.partition(':')[0]} could not be imported")
        raise typer.Exit(1) from None


def _theirs(error: Exception) -> TracebackType | None:
    """Return the part of the traceback that is not about us and Python's import."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THEIRS:
        trace = trace.tb_next
    return trace


_NOT_THEIRS = ("qml_nb", "importlib")
