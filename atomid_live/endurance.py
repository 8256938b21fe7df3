"""What a session costs over a long time: memory over many frames, processor while nothing arrives."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

from atomid_live.assemble import Chain, Prepared

_SETTLED = 100
_LOOKS = 20


def resident_mb() -> float:
    """Memory of this process that lies in RAM, in MB (10^6 bytes); NaN where the system does not tell."""
    if sys.platform == "win32":
        return _windows_mb("WorkingSetSize")
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Greatest `resident_mb` since the process began; NaN where the system does not tell."""
    if sys.platform == "win32":
        return _windows_mb("PeakWorkingSetSize")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if sys.platform == "win32":
    import ctypes

    class _Counters(ctypes.Structure):
        _fields_ = [
            ("cb", ctypes.c_uint32),
            ("PageFaultCount", ctypes.c_uint32),
            *(
                (name, ctypes.c_size_t)
                for name in (
                    "PeakWorkingSetSize", "WorkingSetSize", "QuotaPeakPagedPoolUsage", "QuotaPagedPoolUsage",
                    "QuotaPeakNonPagedPoolUsage", "QuotaNonPagedPoolUsage", "PagefileUsage", "PeakPagefileUsage",
                )
            ),
        ]  # fmt: skip

    def _windows_mb(name: str) -> float:
        kernel, counters = ctypes.WinDLL("kernel32"), _Counters()
        counters.cb = ctypes.sizeof(counters)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        told = kernel.K32GetProcessMemoryInfo(ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.cb)
        return getattr(counters, name) / 1e6 if told else float("nan")


def there_and_back(files: Sequence[Path], count: int) -> list[Path]:
    """`count` files in an order without a jump: forwards, backwards, forwards again."""
    round_trip = [*files, *files[-2:0:-1]]
    return [round_trip[k % len(round_trip)] for k in range(count)]


def growth_mb(chain: Chain, files: Sequence[Path], count: int, first_number: int) -> float:
    """Run `count` frames through a chain and return by how much its memory grows, in MB per 1000 frames.

    The slope is that of a straight line through 20 readings after the first 100 frames, in which buffers and histories of
    bounded length fill up.
    """
    import numpy as np

    readings = []
    every = max(1, (count - _SETTLED) // _LOOKS)
    for number, file in enumerate(there_and_back(files, count)):
        frame = chain.read(file, first_number + number)
        chain.record(frame, chain.process(frame))
        if number >= _SETTLED and (number - _SETTLED) % every == 0:
            chain.settle()
            readings.append((number, resident_mb()))
    if len(readings) < 3:
        return float("nan")
    at, held = np.array(readings).T
    return float(1000 * np.polyfit(at, held, 1)[0])


def idle_percent(prepared: Prepared, seconds: float) -> float:
    """Watch an empty folder and return the processor time used meanwhile, in % of one core."""
    with tempfile.TemporaryDirectory(prefix="atomid-idle-") as text:
        folder, out = Path(text) / "frames", Path(text) / "out"
        folder.mkdir()
        output = prepared.settings.output.model_copy(update={"out": out})
        run = Prepared(prepared.settings.model_copy(update={"output": output}), prepared.origins).watch(folder)
        stop = Event()
        with run.closing:
            session = Thread(target=run.session.run, args=(stop,), name="session")
            session.start()
            try:
                time.sleep(0.5)
                begun, used = time.perf_counter(), time.process_time()
                time.sleep(seconds)
                share = (time.process_time() - used) / (time.perf_counter() - begun)
            finally:
                stop.set()
                session.join()
            run.recorder.finish("clean", "idle", {})
    return 100 * share
