"""A second lane for work that need not wait its turn: only with two threads or more, never with another answer.

Work put beside is done by one helper thread, or by whoever asks for its answer first if the helper has not begun: on a busy
PC a thread may wake late, and a frame must not wait for it. What is put beside must let go of the interpreter (kernels,
transforms, disk), or nothing is won.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

_helper: ThreadPoolExecutor | None = None


def use(threads: int) -> None:
    """Open the second lane for two threads or more, close it for one."""
    global _helper
    if threads < 2 and _helper is not None:
        _helper.shutdown(wait=True)
        _helper = None
    elif threads >= 2 and _helper is None:
        _helper = ThreadPoolExecutor(1, thread_name_prefix="second lane")


class Task(Generic[T]):
    """Work that was put beside."""

    def __init__(self, work: Callable[[], T], future: Future[T] | None) -> None:
        self._work, self._future = work, future

    def result(self) -> T:
        """Return the answer, or raise what the work raised; does the work here and now if nobody has begun it."""
        if self._future is None or self._future.cancel():
            self._future = Future()
            try:
                self._future.set_result(self._work())
            except BaseException as error:
                self._future.set_exception(error)
        return self._future.result()

    def __enter__(self) -> Task[T]:
        return self

    def __exit__(self, *error: object) -> None:
        """Do without the answer: not begun it never will be, begun it is waited for, so that it touches nothing later."""
        if self._future is not None and not self._future.cancel():
            self._future.exception()


def beside(work: Callable[[], T]) -> Task[T]:
    """Begin `work` in the second lane where there is one; it must not depend on what this thread does meanwhile."""
    helper = _helper
    return Task(work, helper.submit(work) if helper is not None else None)
