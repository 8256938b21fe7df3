"""A quiet guest on the microscope's PC: below-normal priority and few threads, set before heavy libraries load."""

from __future__ import annotations

import contextlib
import os
import sys

from atomid_live import lanes


def default_threads() -> int:
    """Half of the processors this process may use, at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // 2)


def behave(threads: int | None) -> int:
    """Lower this process's priority, keep libraries to one thread, and return how many threads a network may use.

    Linear algebra on several threads waits for the slowest by spinning, and on a PC that is busy acquiring that costs
    hundreds of milliseconds a frame. Two threads or more open a second lane (`lanes`). Must run before numpy, numba or cv2
    are imported: they read their limits at import.
    """
    count = threads or default_threads()
    lanes.use(count)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "win32":
            import ctypes

            below_normal = 0x4000
            kernel = ctypes.windll.kernel32
            kernel.SetPriorityClass(kernel.GetCurrentProcess(), below_normal)
        else:
            os.nice(max(0, 5 - os.nice(0)))
    return count
