"""`session.log`: the program's log beside its data, in UTC, of bounded size."""

from __future__ import annotations

import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

NAME = "session.log"


class _SessionLog(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lose the line: a log that cannot be written must not print over the screen or stop a session."""


def log_handler(folder: Path, *, max_bytes: int = 5_000_000, backups: int = 4) -> logging.Handler:
    """Return a handler for the `atomid_live` logger that writes `session.log` and its numbered predecessors."""
    handler = _SessionLog(folder / NAME, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True)
    handler.setFormatter(_formatter())
    return handler


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    return formatter
