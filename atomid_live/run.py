"""Run what `assemble` built: the session in its own thread, the display in the main one, an orderly end.

A display that dies leaves the session running; a session that ends tells its display.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from atomid_live import __version__
from atomid_live.assemble import Prepared, Run
from atomid_live.errors import AtomidError, RecordingError
from atomid_live.session import Outcome, SystemClock
from atomid_live.session_file import log_handler
from atomid_live.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def _logging_to(folder: Path, verbose: bool) -> Iterator[None]:
    """Send the program's log into the session folder while the session runs."""
    logger, handler = logging.getLogger("atomid_live"), log_handler(folder)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _show(run: Run, settings: Settings, stop: Event) -> None:
    """Keep the main thread with the display until the session has ended."""
    from atomid_live.sinks.console import still_running, stop_on_signal

    output, clock = settings.output, SystemClock()
    if "window" in output.display:
        from atomid_live.sinks.window import WindowDisplay

        window = WindowDisplay(run.session)
        run.closing.callback(window.close)
        problem = window.start()
        if problem:
            print(f"atomid-live: no window: {problem}", file=sys.stderr)
    if "browser" in output.display:
        from atomid_live.sinks.browser.server import BrowserDisplay

        browser = BrowserDisplay(run.session)
        run.closing.callback(browser.close)
        problem = browser.start()
        print(f"atomid-live: {problem or f'the session is at {browser.address}'}", file=sys.stderr)
    if output.json_lines or "terminal" in output.display:
        from atomid_live.sinks.terminal import display_for

        display_for(run.session, sys.stdout, clock, output.json_lines).run(stop)
    else:
        with stop_on_signal(stop):
            for _ in still_running(run.session, stop, 0.2):
                pass


def _end(run: Run, outcome: Outcome) -> AtomidError | None:
    """End the session on disk, pictures still being drawn first; returns what went wrong with that."""
    status = run.session.status()
    numbers = {
        "latency_ms": {"p50": status.latency_p50_ms, "p95": status.latency_p95_ms, "p99": status.latency_p99_ms},
        "missing": status.source.missing,
    }
    try:
        run.recorder.finish("clean" if outcome.clean else "failure", outcome.reason, numbers)
    except RecordingError as error:
        return error
    return None


def execute(run: Run, settings: Settings) -> int:
    """Run a session to its end and return the exit code of CONTRACT."""
    stop, outcomes = Event(), list[Outcome]()
    worker = Thread(target=lambda: outcomes.append(run.session.run(stop)), name="session")
    with run.closing, _logging_to(run.path, settings.output.verbose):
        log.info("session %s begins: atomid-live %s, %s", run.path.name, __version__, run.session.status().model)
        for note in run.notes:
            log.info(note)
            if not settings.output.json_lines:
                print(f"atomid-live: {note}", file=sys.stderr)
        worker.start()
        try:
            _show(run, settings, stop)
        finally:
            stop.set()
            worker.join()
        outcome = outcomes[0] if outcomes else Outcome(False, "the session thread died; session.log tells why")
        problem = _end(run, outcome)
        log.info("session ends: %s (%s); %s", "clean" if outcome.clean else "failure", outcome.reason, run.session.counts)
    if outcome.error is not None:
        raise outcome.error
    if problem is not None:
        raise problem
    return 0 if outcome.clean else 1


def watch(prepared: Prepared, folder: Path) -> int:
    """Watch a folder."""
    return execute(prepared.watch(folder), prepared.settings)


def listen(prepared: Prepared, address: str, insecure: bool) -> int:
    """Take frames from a stream."""
    return execute(prepared.listen(address, insecure), prepared.settings)


def replay(prepared: Prepared, paths: list[Path], pace_s: float | None) -> int:
    """Run saved frames through the live path."""
    return execute(prepared.replay(paths, pace_s), prepared.settings)
