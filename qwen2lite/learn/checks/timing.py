"""What the exercise 83_gpu asks of a stopwatch: to wait for a device that works later.

The device is made of three numbers, so that the same seconds come out on every machine.
"""

from collections.abc import Callable, Iterator
from typing import Any

from qwen2lite.learn.contract import Mistake, call, require_number, told_by
from qwen2lite.learn.mutants.timing import MUTANTS

Part = Callable[..., Any]


class _Device:
    """It takes orders, and does them in its own time. The first of them takes long.

    Args:
        sending: seconds to send one order.
        work: seconds to do one.
    """

    def __init__(self, sending: float, work: float):
        self.sending, self.work = sending, work
        self.now, self.free_at, self.runs = 100.0, 107.0, 0

    def run(self) -> None:
        self.now += self.sending
        first = 3.0 if not self.runs else 0.0
        self.free_at = max(self.free_at, self.now) + self.work + first
        self.runs += 1

    def wait(self) -> None:
        self.now = max(self.now, self.free_at)

    def clock(self) -> float:
        return self.now


def check_seconds_of(seconds_of: Part) -> Iterator[str]:
    """A slow device, one that waits for its orders, and one that has earlier work to do."""
    for sending, work, what in (
        (0.001, 0.020, "the device works 20 ms"),
        (0.020, 0.005, "sending takes 20 ms, the work 5"),
    ):
        device = _Device(sending, work)
        got = call(seconds_of, device.run, device.wait, device.clock)
        require_number(got, "seconds_of")
        if not 0.999 * max(sending, work) <= got <= 1.001 * (sending + work):
            raise Mistake(
                f"Where {what}, a step takes {1e3 * max(sending, work):.3g} to "
                f"{1e3 * (sending + work):.3g} ms; yours measured {1e3 * got:.3g}.",
                _time_reason(seconds_of),
            )
        if device.runs < 4:
            raise Mistake(
                f"It ran {device.runs} times. One run may be disturbed: after the first do three more, "
                "and take their mean or the least."
            )
        yield f"{what}: {1e3 * max(sending, work):.3g} to {1e3 * (sending + work):.3g} ms a step"


def _time_reason(part: Part) -> str:
    mine = _times(part)
    known = (m for m in MUTANTS["seconds_of"] if _close(_times(m), mine))
    return next(map(told_by, known), "")


def _times(part: Part) -> list[float]:
    devices = (_Device(0.001, 0.020), _Device(0.020, 0.005))
    return [call(part, d.run, d.wait, d.clock, name="seconds_of") for d in devices]


def _close(theirs: list[float], mine: list[float]) -> bool:
    """Alike but for the number of runs, which is free."""
    return all(abs(a - b) <= 0.3 * abs(b) + 1e-4 for a, b in zip(theirs, mine, strict=True))
