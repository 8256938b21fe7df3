"""The second lane: the same answers with and without it, nothing waits for a helper that has not begun, nothing runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from atomid_live import lanes


@pytest.fixture
def two() -> Iterator[None]:
    """Two lanes during a test."""
    lanes.use(2)
    yield
    lanes.use(1)


def test_one_lane_works_in_the_asking_thread() -> None:
    """And only once it is asked."""
    done: list[str] = []

    def work() -> int:
        done.append(threading.current_thread().name)
        return 7

    task = lanes.beside(work)
    assert done == []
    assert (task.result(), task.result()) == (7, 7)
    assert done == [threading.current_thread().name]


@pytest.mark.usefixtures("two")
def test_the_helper_runs_while_the_other_goes_on() -> None:
    """Each waits for the other: only threads that run at the same time come through."""
    here, there = threading.Event(), threading.Event()

    def work() -> str:
        there.set()
        assert here.wait(10)
        return threading.current_thread().name

    task = lanes.beside(work)
    assert there.wait(10)
    here.set()
    assert task.result().startswith("second lane")


@pytest.mark.usefixtures("two")
def test_work_that_nobody_has_begun_is_done_by_who_asks() -> None:
    """A helper that is busy holds nobody up."""
    let_go, busy = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        assert let_go.wait(10)

    first = lanes.beside(hold)
    assert busy.wait(10)
    second = lanes.beside(lambda: threading.current_thread().name)
    assert second.result() == threading.current_thread().name
    let_go.set()
    first.result()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_where_the_answer_is_asked_for(threads: int) -> None:
    """As if the work had been done there; and again when asked again."""
    lanes.use(threads)

    def work() -> int:
        raise ValueError("broken frame")

    task = lanes.beside(work)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken frame"):
            task.result()
    lanes.use(1)


@pytest.mark.usefixtures("two")
def test_leaving_early_waits_for_what_has_begun_and_forgets_the_rest() -> None:
    """What was begun may still be reading the frame's buffers; what was not must never touch them."""
    begun, let_go, ended = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        assert let_go.wait(10)
        ended.append("first")

    with pytest.raises(KeyError), lanes.beside(work), lanes.beside(lambda: ended.append("second")):
        assert begun.wait(10)
        threading.Timer(0.05, let_go.set).start()
        raise KeyError
    assert ended == ["first"]
    assert lanes.beside(lambda: 3).result() == 3
    assert ended == ["first"]
