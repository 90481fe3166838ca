"""Wrong versions of a training step: of its learning rate, its clearing, and its guard.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.train.gradients import accumulate
from qwen2lite.train.optim import clip_gradients

Batches = Sequence[tuple[Tensor, Tensor]]


def _step(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float | None,
    max_norm: float,
    guard: Callable[[float, float], bool],
) -> float:
    """A step that is right if the learning rate and the guard are."""
    if learning_rate is not None:
        _set(optimizer, learning_rate)
    loss = accumulate(objective, batches)
    norm = clip_gradients(objective.parameters(), max_norm)
    if not guard(float(loss), float(norm)):
        raise ValueError(f"the loss is {loss}, the norm of the gradient {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


def _set(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _both(loss: float, norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(norm)


def rate_not_set(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """The learning rate isn't used: the optimizer goes on with the one it was made with, and the
    schedule is only in the log. It is group["lr"], for each of optimizer.param_groups."""
    return _step(objective, batches, optimizer, None, max_norm, _both)


def rate_one_step_late(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """The learning rate is set after the step, so each step uses the one before, and the first uses
    whatever the optimizer was made with: set it first."""
    loss = _step(objective, batches, optimizer, None, max_norm, _both)
    _set(optimizer, learning_rate)
    return loss


def nothing_cleared(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """zero_grad() is missing. backward() adds to the gradient that is there, so each step also moves
    by all steps before it (torchforge #71, tt-blacksmith #711)."""
    kept = optimizer.zero_grad
    optimizer.zero_grad = lambda *_: None  # type: ignore[method-assign]
    try:
        return _step(objective, batches, optimizer, learning_rate, max_norm, _both)
    finally:
        optimizer.zero_grad = kept  # type: ignore[method-assign]


def not_clipped(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """The gradient isn't shortened to max_norm, or not before the step. One strange batch can then
    throw the weights far away: clip between accumulating and stepping."""
    return _step(objective, batches, optimizer, learning_rate, math.inf, _both)


def steps_on_nan(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """It steps with what is not a number. Clipping doesn't help, and after the step no weight is a
    number; the next checkpoints are saved so, and the last good one is deleted (pytorch #46849,
    pocket-tts #262). Look first, and raise ValueError."""
    return _step(objective, batches, optimizer, learning_rate, max_norm, lambda *_: True)


def looks_at_the_loss_only(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """Only the loss is looked at, or only for NaN. A loss may be a number where its gradient is
    infinite: ask `math.isfinite` of the norm too, which knows of every gradient (mlx-lm #1658)."""
    return _step(
        objective, batches, optimizer, learning_rate, max_norm, lambda loss, _: math.isfinite(loss)
    )


def looks_too_late(
    objective: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    max_norm: float,
) -> float:
    """It raises, but after the step has been made, when the weights are ruined: look before
    optimizer.step()."""
    loss = steps_on_nan(objective, batches, optimizer, learning_rate, max_norm)
    if not all(bool(p.isfinite().all()) for p in objective.parameters()):
        raise ValueError("the loss or its gradient is not a number")
    return loss


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "training_step": (
        rate_not_set,
        rate_one_step_late,
        nothing_cleared,
        not_clipped,
        steps_on_nan,
        looks_at_the_loss_only,
        looks_too_late,
    ),
}
"""The wrong versions of the task."""
