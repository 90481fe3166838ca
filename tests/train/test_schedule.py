"""The learning rate by hand, as PyTorch's own schedulers have it, and what holds for any numbers."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    SequentialLR,
)

from qwen2lite.train import schedule
from qwen2lite.train.schedule import SCHEDULES, cooldown, cosine, linear


def test_a_cosine_by_hand():
    # Two steps up, four down: a quarter of the wave is cos 45°, half of it 0.
    quarter = (1 + math.sqrt(0.5)) / 2
    factors = [cosine(step, 6, 2, floor=0.2) for step in range(6)]
    wanted = [0.5, 1.0, 0.2 + 0.8 * quarter, 0.6, 0.2 + 0.8 * (1 - quarter), 0.2]
    assert factors == pytest.approx(wanted, rel=1e-12)


def test_a_line_by_hand():
    factors = [linear(step, 7, 3, floor=0.2) for step in range(7)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2], rel=1e-12)


def test_a_cooldown_by_hand():
    factors = [cooldown(step, 8, 2, floor=0.0, cooldown_steps=4) for step in range(8)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0], rel=1e-12)


def test_a_cooldown_of_no_steps_stays_up():
    assert [cooldown(step, 4, 1) for step in range(4)] == [1.0] * 4


def test_without_warm_up_the_first_update_is_already_a_little_down():
    assert [linear(step, 4, 0, floor=0.0) for step in range(4)] == [0.75, 0.5, 0.25, 0.0]


def pytorchs(name, steps, warmup, floor, down):
    """The factors that PyTorch's schedulers give for the same idea."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    start = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    if name == "cosine":
        parts = [start, CosineAnnealingLR(optimizer, T_max=steps - warmup, eta_min=floor)]
    else:
        descent = down if name == "cooldown" else steps - warmup
        line = LinearLR(optimizer, start_factor=1.0, end_factor=floor, total_iters=descent)
        flat = ConstantLR(optimizer, factor=1.0)
        parts = [start, line] if name == "linear" else [start, flat, line]
    ends = [warmup - 1] if len(parts) == 2 else [warmup - 1, steps - down - 1]
    together = SequentialLR(optimizer, parts, milestones=ends)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        together.step()
    return factors


def agrees_with_pytorch(name, function):
    for steps, warmup, floor, down in [(40, 7, 0.1, 11), (23, 2, 0.25, 5), (9, 4, 0.5, 4)]:
        extra = {"cooldown_steps": down} if name == "cooldown" else {}
        mine = [function(step, steps, warmup, floor, **extra) for step in range(steps)]
        theirs = pytorchs(name, steps, warmup, floor, down)
        assert mine == pytest.approx(theirs, rel=1e-6), (name, steps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_are_those_of_pytorch(name):
    agrees_with_pytorch(name, SCHEDULES[name])


def late(function, step, steps, *rest, **more):
    """Counts the steps from 1 where they are counted from 0."""
    return function(max(step - 1, 0), steps, *rest, **more)


def early(function, step, steps, *rest, **more):
    return function(min(step + 1, steps - 1), steps, *rest, **more)


def over_all_steps(function, step, steps, warmup, *rest, **more):
    """Begins the descent at step 0, under the warm-up."""
    if step < warmup:
        return function(step, steps, warmup, *rest, **more)
    return function(step, steps, 0, *rest, **more)


def never_arrives(function, step, steps, *rest, **more):
    return function(step, steps + 1, *rest, **more)


@pytest.mark.parametrize("bug", [late, early, over_all_steps, never_arrives])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_schedule_with_a_bug_is_caught(name, bug):
    with pytest.raises(AssertionError):
        agrees_with_pytorch(name, partial(bug, SCHEDULES[name]))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_that_starts_at_zero_is_caught(name, monkeypatch):
    monkeypatch.setattr(schedule, "warm_up", lambda step, warmup_steps: step / warmup_steps)
    with pytest.raises(AssertionError):
        agrees_with_pytorch(name, SCHEDULES[name])


@st.composite
def plans(draw):
    """A schedule with its numbers, and a line of all its factors."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    steps = draw(st.integers(2, 120))
    warmup = draw(st.integers(0, steps - 1))
    floor = draw(st.floats(0, 1))
    extra = {}
    if name == "cooldown":
        extra["cooldown_steps"] = draw(st.integers(1, steps - warmup))
    factors = [SCHEDULES[name](step, steps, warmup, floor, **extra) for step in range(steps)]
    return steps, warmup, floor, extra.get("cooldown_steps", steps - warmup), factors


@settings(deadline=None)
@given(plans())
def test_it_climbs_to_the_peak_and_descends_to_exactly_the_floor(plan):
    _, warmup, floor, _, factors = plan
    assert factors[-1] == floor
    assert all(0 <= factor <= 1 for factor in factors)
    up, down = factors[:warmup], factors[warmup:]
    assert up == sorted(set(up)), "each step of the warm-up is above the one before"
    assert all(factor > 0 for factor in up)
    assert down == sorted(down, reverse=True)
    if warmup:
        assert up[-1] == 1.0


@settings(deadline=None)
@given(plans())
def test_it_has_no_jump(plan):
    _, warmup, floor, descent, factors = plan
    # A cosine is steepest in its middle: π/2 times the line between its ends.
    steepest = max(1 / max(warmup, 1), (1 - floor) * math.pi / 2 / descent)
    for before, after in pairwise(factors):
        assert abs(after - before) <= steepest * (1 + 1e-9)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(51, 200), st.integers(201, 400))
def test_a_plateau_does_not_depend_on_the_end(step, steps, later):
    assert cooldown(step, steps, 10, cooldown_steps=0) == cooldown(step, later, 10)
    soon = cooldown(step, later, 10, cooldown_steps=later - 51)
    assert soon == cooldown(step, later, 10), "the 51st update is the last before the descent"


@pytest.mark.parametrize("name", SCHEDULES)
def test_beyond_the_end_it_stays_at_the_floor(name):
    extra = {"cooldown_steps": 3} if name == "cooldown" else {}
    assert SCHEDULES[name](25, 10, 2, 0.3, **extra) == 0.3
    assert SCHEDULES[name](25, 10, 2, **extra) == 0.1, "a tenth of the peak, as Qwen(1)"
