r"""The learning rate over training: pure functions from the number of a step to a factor.

The factor multiplies the peak learning rate. All schedules climb from near 0 to 1 in the first
`warmup_steps`, because AdamW's running means are poor at first, and end at `floor`:

    cosine     1, then half a cosine wave down to the floor
    linear     1, then a straight line down to the floor
    cooldown   1 for most of the time, then a straight line down in the last `cooldown_steps`

Steps are counted from 0, so step t is the (t + 1)-th update. The first update has a factor of
1 / warmup_steps and not 0, which would be an update that does nothing; update number `warmup_steps`
is the first at the peak, and the last update is made exactly at the floor.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def cosine(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    r"""Warm-up, then $floor + (1 - floor)\,(1 + \cos \pi p) / 2$, p from 0 to 1.

    Args:
        step: from 0.
        steps: updates in all.
        warmup_steps: updates until the peak.
        floor: the last update's factor; Qwen(1) ended at 10 % of the peak.

    Source: arXiv 1608.03983, eq. 5; arXiv 2309.16609, section 2.4.
    """
    if step < warmup_steps:
        return warm_up(step, warmup_steps)
    wave = (1 + math.cos(math.pi * progress(step, warmup_steps, steps))) / 2
    return floor + (1 - floor) * wave


def linear(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """Warm-up, then a straight line from 1 to the floor. Arguments are those of `cosine`."""
    if step < warmup_steps:
        return warm_up(step, warmup_steps)
    return floor + (1 - floor) * (1 - progress(step, warmup_steps, steps))


def cooldown(
    step: int, steps: int, warmup_steps: int, floor: float = 0.1, cooldown_steps: int = 0
) -> float:
    """Warm-up, a plateau, and a straight line to the floor in the last `cooldown_steps`.

    Until the cooldown begins nothing depends on `steps`: a run can be prolonged from the plateau,
    which a cosine can't.

    Args:
        step: from 0.
        steps: updates in all.
        warmup_steps: updates until the peak.
        floor: the last update's factor.
        cooldown_steps: updates below the peak at the end; with 0 there is no descent.

    Source: arXiv 2405.18392, section 3.
    """
    if step < warmup_steps:
        return warm_up(step, warmup_steps)
    return floor + (1 - floor) * (1 - progress(step, steps - cooldown_steps, steps))


def warm_up(step: int, warmup_steps: int) -> float:
    """A straight line that reaches 1 with update number `warmup_steps`."""
    return (step + 1) / warmup_steps


def progress(step: int, start: int, end: int) -> float:
    """How much of a descent is done: 0 after `start` updates, 1 after `end`, never outside."""
    if end <= start:
        return 0.0
    return min(max((step + 1 - start) / (end - start), 0.0), 1.0)


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": cosine,
    "linear": linear,
    "cooldown": cooldown,
}
