"""Wrong ways to take the time of a device that works while Python goes on, from the exercise 83_gpu."""

from collections.abc import Callable
from typing import Any

Calls = Callable[[], Any]


def without_waiting(run: Calls, wait: Calls, clock: Callable[[], float]) -> float:
    """The clock is read when the work has been *sent*. The device does it later, and so everything
    seems to take no time (mlx-benchmark #21: a 64th): wait before the clock is read."""
    run()
    wait()
    start = clock()
    for _ in range(5):
        run()
    return (clock() - start) / 5


def started_too_early(run: Calls, wait: Calls, clock: Callable[[], float]) -> float:
    """The clock starts while the device still has earlier work to do, which is then counted: wait
    before the start too."""
    run()
    start = clock()
    for _ in range(5):
        run()
    wait()
    return (clock() - start) / 5


def first_run_too(run: Calls, wait: Calls, clock: Callable[[], float]) -> float:
    """The first run is counted. It compiles, tunes and takes memory, once for all: do one before the
    clock starts."""
    wait()
    start = clock()
    for _ in range(5):
        run()
    wait()
    return (clock() - start) / 5


def all_together(run: Calls, wait: Calls, clock: Callable[[], float]) -> float:
    """That is the time of five runs: divide by their number."""
    run()
    wait()
    start = clock()
    for _ in range(5):
        run()
    wait()
    return clock() - start


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "seconds_of": (without_waiting, started_too_early, first_run_too, all_together),
}
"""The wrong versions of the task."""
