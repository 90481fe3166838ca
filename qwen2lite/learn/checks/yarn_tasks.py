"""What the exercise 52_yarn asks beside the parts: growth of the scores, and mended angles."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    require_number,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.yarn_tasks import MUTANTS

Part = Callable[..., Any]


def check_score_growth(score_growth: Part) -> Iterator[str]:
    """Qwen2's factor, then others, and no stretch."""
    for factor, want, what in (
        (4.0, 1.2964766, "a factor of 4: 1.1386 on both sides makes 1.2965"),
        (8.0, 1.4591290, "a factor of 8: 1.4591"),
        (1.0, 1.0, "without a stretch nothing grows"),
        (0.5, 1.0, "and nothing shrinks below it"),
    ):
        got = call(score_growth, factor)
        require_number(got, "score_growth")
        if not math.isclose(got, want, rel_tol=1e-5):
            wrong = (m for m in MUTANTS["score_growth"] if math.isclose(m(factor), got))
            raise Mistake(
                f"score_growth({factor:g}) is {got:.5g}; {want:.5g} was wanted.",
                next(map(told_by, wrong), ""),
            )
        yield what


def check_mended_angles(mended_angles: Part) -> Iterator[str]:
    """By hand for three pairs, within the trained length and behind it."""
    frequencies_R, ramp_R = torch.tensor([1.0, 0.5, 0.25]), torch.tensor([0.0, 0.5, 1.0])
    for positions, want, what in (
        ([1, 20, 100], [[1, 0.3125, 0.0625], [20, 6.25, 1.25], [100, 31.25, 6.25]], "by hand"),
        ([0, 8, 9], [[0, 0, 0], [8, 2.5, 0.5], [9, 2.8125, 0.5625]], "within the trained length"),
    ):
        inputs = (torch.tensor(positions), frequencies_R, ramp_R, 4.0, 10)
        got = call(mended_angles, *inputs)
        require_tensor(got, [3, 3], torch.float32, "mended_angles")
        if not same(got, torch.tensor(want, dtype=torch.float32)):
            raise Mistake(
                f"With frequencies 1, 0.5, 0.25, a ramp of 0, 0.5, 1, a factor of 4 and 10 trained "
                f"tokens, the positions {positions} have the angles {want}; yours are {numbers(got)}.",
                usual_reason(MUTANTS["mended_angles"], got, *inputs),
            )
        yield what
