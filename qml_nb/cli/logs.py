"""What a worker writes on stderr: a line for each record, and which job was running."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from qml_nb.logs import JobFields, JSONFormatter

if TYPE_CHECKING:
    from logging import LogRecord

Form = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s %(method)s %(job_id)s"


class _TextFormatter(logging.Formatter):
    """Ends each line with the job that was running, if any was."""

    def format(self, record: LogRecord) -> str:
        return super().format(record).rstrip()


def log_on_stderr(form: Form | None = None, level: Level | None = None) -> None:
    """Write records in that form, from that level on; with neither, as text from "info" on.

    Where the application has set up its own logs, they stay as they are, unless one of the two is given.
    """
    handler = logging.StreamHandler()
    handler.addFilter(JobFields())
    handler.setFormatter(JSONFormatter() if form == "json" else _TextFormatter(_TEXT))
    force = form is not None or level is not None
    logging.basicConfig(level=(level or "info").upper(), handlers=[handler], force=force)
