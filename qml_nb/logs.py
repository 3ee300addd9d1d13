"""Logs of jobs: every record that is emitted while one runs says which, and a record can be one line of JSON.

handler = logging.StreamHandler()
handler.addFilter(JobFields())
handler.setFormatter(JSONFormatter())
logging.basicConfig(level="INFO", handlers=[handler])
"""

from __future__ import annotations

from datetime import UTC, datetime
from logging import Filter, Formatter, LogRecord
from typing import Any, Final

from msgspec.json import Encoder

from qml_nb.server.context import running
from qml_nb.validate import storable

FIELDS: Final = ("job_id", "method", "queue", "attempt", "server")
"""What a record says of the job that runs."""
_STANDARD: Final = frozenset(vars(LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class JobFields(Filter):
    """Adds `job_id`, `method`, `queue`, `attempt` and `server` to each record; outside of jobs they are empty text.

    It belongs on a handler, where it sees the records of all loggers, the application's and those of its packages, and can
    be named in a format: `%(method)s %(job_id)s`. What a record says by itself stays. It refuses no record.
    """

    def filter(self, record: LogRecord) -> bool:
        """Add the fields."""
        run = running.get(None)
        if run is None:
            values: tuple[Any, ...] = ("",) * len(FIELDS)
        else:
            job = run.job
            values = (job.id, job.method, job.queue, job.attempt, job.worker_id or "")
        for name, value in zip(FIELDS, values, strict=True):
            if name not in record.__dict__:
                record.__dict__[name] = value
        return True


class JSONFormatter(Formatter):
    """Writes a record as one object on one line: `ts`, `level`, `logger`, `message`, and what else it carries.

    That is what `JobFields` adds, what was given as `extra`, and `exception` and `stack` as text. What JSON can't carry
    stands as its `repr`.
    """

    def format(self, record: LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = record.__dict__.items()
        fields |= {name: value for name, value in given if name not in _STANDARD and value != ""}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return _line(fields)


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


_encode: Final = Encoder(enc_hook=_text).encode


def _line(fields: dict[str, Any]) -> str:
    try:
        return _encode(fields).decode()
    except (ValueError, TypeError, RecursionError, OverflowError):  # a lone surrogate, keys that are no text, a circle
        return _encode({storable(name): storable(_text(value)) for name, value in fields.items()}).decode()
