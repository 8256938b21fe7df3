"""A window with the frame, the strain map, the drift path and the strain history, in a process of its own.

The window asks for a snapshot when it has drawn the last one, so it always gets the newest and nothing queues up. If it is
closed, breaks or was never possible, the session goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from threading import Event, Thread
from typing import Any

from atomid_live.sinks.view import Snapshot, SnapshotSource
from atomid_live.types import GpaField, Lattice

log = logging.getLogger(__name__)

_QT = ("PySide6", "PyQt6", "PyQt5", "PySide2")
_INSTALL = (
    "install one: pip install PySide6-Essentials, or your system's Tk for Python (Debian, Ubuntu: apt install python3-tk)"
)
_DRAW_MS = 250
# With toolbar and frame it fits on a screen of 1280 x 800.
FIGURE_INCHES = (12.0, 6.9)
_SAME_FRAME_S = 2.0
_LET_GO_S = 2.0
_NEXT = "next"


def toolkit(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> tuple[str, str]:
    """Choose how a window can be opened here, without loading anything heavy.

    Returns
    -------
    backend, problem : str, str
        matplotlib's name of the toolkit, or "" and what is missing with what to do about it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return "", "the window needs matplotlib: pip install atomid-live[window]"
    if platform.startswith("linux") and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return "", "this session has no graphical display (DISPLAY is not set); use --display terminal, or ssh -X"
    if any(importlib.util.find_spec(name) for name in _QT):
        return "QtAgg", ""
    if importlib.util.find_spec("_tkinter") is not None:
        return "TkAgg", ""
    return "", f"no window toolkit for this Python; {_INSTALL}"


def parcel(snapshot: Snapshot) -> Snapshot:
    """Leave out what the window does not draw, so that little is copied to it."""
    latest = snapshot.latest
    if latest is not None:
        latest = replace(latest, lattice=Lattice(), gpa=GpaField(), timings_ms={})
    return replace(snapshot, latest=latest, log=())


class WindowDisplay:
    """Opens the window once and feeds it until it is closed, by whomever.

    Parameters
    ----------
    source : SnapshotSource
        The session.
    colour_by : {"score", "strain"}
        What colours the columns on the frame at first; the key `c` in the window changes it.
    """

    def __init__(self, source: SnapshotSource, colour_by: str = "score") -> None:
        self._source, self._colour_by = source, colour_by
        self._closing, self._sent = Event(), -1
        self._process: Any = None
        self._feeder: Thread | None = None

    def start(self) -> str:
        """Open the window; returns "" or, in words, why there will be none."""
        backend, problem = toolkit()
        if problem:
            return problem
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, backend, self._colour_by), name="atomid-live window", daemon=True
        )
        try:
            self._process.start()
        except OSError as error:
            return f"the window's process could not be started: {error}"
        theirs.close()
        self._feeder = Thread(target=self._feed, args=(ours,), name="window feeder", daemon=True)
        self._feeder.start()
        return ""

    @property
    def alive(self) -> bool:
        """Whether the window's process runs."""
        return self._process is not None and bool(self._process.is_alive())

    def close(self) -> None:
        """Close the window; may be called twice, and never waits longer than a few seconds."""
        self._closing.set()
        if self._feeder is not None:
            self._feeder.join(_LET_GO_S)
        if self._process is not None:
            self._process.join(_LET_GO_S)
            if self._process.is_alive():
                self._process.terminate()

    def _feed(self, connection: Any) -> None:
        try:
            while not self._closing.is_set():
                if not connection.poll(0.1):
                    continue
                asked = connection.recv()
                if asked != _NEXT:
                    log.warning("the window: %s; the session goes on", asked)
                    return
                self._answer(connection)
            connection.send(None)
        except (EOFError, OSError):
            log.info("the window was closed; the session goes on")
        except Exception:
            log.exception("the window cannot be fed; the session goes on")
        finally:
            connection.close()

    def _answer(self, connection: Any) -> None:
        """Send what is new; when nothing is, the same frame a little later, for its age."""
        until = time.monotonic() + _SAME_FRAME_S
        while self._source.snapshot().logged == self._sent and time.monotonic() < until:
            if self._closing.wait(_DRAW_MS / 1000):
                return
        snapshot = self._source.snapshot(preview=True)
        self._sent = snapshot.logged
        connection.send(parcel(snapshot))


def serve(connection: Connection[Any, Any], backend: str, colour_by: str) -> None:
    """Be the window's process: open it, ask for snapshots, draw them, until it is closed or the session is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the session's; the window is closed by it
    _step_back()
    try:
        _Window(connection, backend, colour_by).run()
    except Exception as error:
        with suppress(OSError):
            connection.send(f"cannot draw ({type(error).__name__}: {error}); if the toolkit is at fault, {_INSTALL}")


def _step_back() -> None:
    """Give this process less of the processor than the session gets."""
    if sys.platform == "win32":
        import ctypes

        below_normal = 0x4000
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.SetPriorityClass(ctypes.c_void_p(kernel.GetCurrentProcess()), below_normal)
    else:
        os.nice(5)


class _Window:
    def __init__(self, connection: Connection[Any, Any], backend: str, colour_by: str) -> None:
        import matplotlib

        matplotlib.use(backend)
        matplotlib.rcParams["figure.raise_window"] = False
        matplotlib.rcParams["toolbar"] = "toolbar2"
        from matplotlib import pyplot

        self._connection, self._colour_by, self._pyplot = connection, colour_by, pyplot
        self._snapshot: Snapshot | None = None
        self._error: Exception | None = None
        self._figure = pyplot.figure("atomid-live", figsize=FIGURE_INCHES)
        self._figure.canvas.mpl_connect("key_press_event", self._key)
        _never_take_focus(self._figure.canvas.manager.window, backend)

    def run(self) -> None:
        """Open the window and stay until it is closed; an error while drawing closes it and is raised here."""
        timer = self._figure.canvas.new_timer(interval=_DRAW_MS)
        timer.add_callback(self._tick)
        timer.start()
        self._connection.send(_NEXT)
        self._pyplot.show()
        if self._error is not None:
            raise self._error

    def _tick(self) -> None:
        try:
            if self._connection.poll():
                self._snapshot = self._connection.recv()
                if self._snapshot is None:
                    self._pyplot.close(self._figure)
                    return
                self._draw()
                self._connection.send(_NEXT)
        except (EOFError, OSError):
            self._pyplot.close(self._figure)
        except Exception as error:
            self._error = error
            self._pyplot.close(self._figure)

    def _draw(self) -> None:
        from atomid_live.sinks.figure import draw

        if self._snapshot is not None:
            draw(self._figure, self._snapshot, self._colour_by)
            self._figure.canvas.draw_idle()

    def _key(self, event: Any) -> None:
        if event.key == "c":
            self._colour_by = "score" if self._colour_by == "strain" else "strain"
            self._draw()


def _never_take_focus(window: Any, backend: str) -> None:
    """Ask the toolkit to show the window without giving it the keyboard; a click gives it."""
    if backend == "QtAgg":
        from matplotlib.backends.qt_compat import QtCore

        window.setAttribute(QtCore.Qt.WidgetAttribute.WA_ShowWithoutActivating, True)
    elif sys.platform.startswith("linux"):
        window.wm_focusmodel("active")
        window.bind("<Button-1>", lambda event: window.focus_force(), add="+")
