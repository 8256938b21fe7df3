"""The terminal as a device: signals that stop a session politely, and a Windows console that a click must not freeze."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from atomid_live.sinks.view import Snapshot, SnapshotSource

_QUICK_EDIT, _EXTENDED_FLAGS, _STD_INPUT = 0x0040, 0x0080, -10


def still_running(source: SnapshotSource, stop: threading.Event, interval_s: float) -> Iterator[Snapshot]:
    """Yield snapshots a few times a second until the session has ended; the last one is of the ended session.

    A set `stop` only asks the session to end, so the snapshots go on until it has.
    """
    pause = threading.Event()
    while True:
        snapshot = source.snapshot()
        yield snapshot
        if not snapshot.status.running:
            return
        (pause if stop.is_set() else stop).wait(interval_s)


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, a termination request or a closed terminal set `stop`; the second one raises `KeyboardInterrupt`.

    Signals can only be handled in the main thread; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # nohup stays in force
        wanted.append(hang_up)
    before: list[tuple[signal.Signals, Any]] = [(number, signal.signal(number, heard)) for number in wanted]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


if sys.platform == "win32":

    @contextmanager
    def no_quick_edit() -> Iterator[None]:
        """Switch off the Windows console's QuickEdit, in which a click holds up every write, and restore it at the end."""
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetStdHandle.restype = ctypes.c_void_p
        handle, mode = ctypes.c_void_p(kernel.GetStdHandle(_STD_INPUT)), ctypes.c_ulong()
        is_console = bool(kernel.GetConsoleMode(handle, ctypes.byref(mode)))
        if is_console:
            kernel.SetConsoleMode(handle, (mode.value & ~_QUICK_EDIT) | _EXTENDED_FLAGS)
        try:
            yield
        finally:
            if is_console:
                kernel.SetConsoleMode(handle, mode.value | _EXTENDED_FLAGS)

else:

    @contextmanager
    def no_quick_edit() -> Iterator[None]:
        """Do nothing: only Windows consoles hold up a program whose text is being selected."""
        yield
