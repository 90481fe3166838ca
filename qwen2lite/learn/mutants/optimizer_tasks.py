"""Wrong versions of the cosine schedule and of one update, from the exercise 42_optimizer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from qwen2lite.train.optim import clip_gradients
from qwen2lite.train.schedule import cosine


def warm_up_from_zero(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """The warm-up begins at 0, so the first update does nothing. Steps count from 0: divide
    step + 1 by warmup_steps (google-research/bert #1293, verl #3674)."""
    if step < warmup_steps:
        return step / warmup_steps
    return cosine(step, steps, warmup_steps, floor)


def descent_one_late(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """The descent is one step late: the peak is used twice, and the last update is made above the
    floor. Steps count from 0, so the last is steps - 1 (torchtitan #1261)."""
    if step < warmup_steps:
        return cosine(step, steps, warmup_steps, floor)
    return cosine(step - 1, steps, warmup_steps, floor) if step > warmup_steps else 1.0


def ends_at_zero(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """The wave goes down to 0 whatever the floor is: let 1 - floor be the height of the wave, and
    add the floor (transformers had no floor for long: #26209)."""
    return cosine(step, steps, warmup_steps, floor=0.0)


def held_at_the_floor(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """A wave down to 0 is cut off at the floor with max(), so it gets there early and stays: the
    wave itself has to be flatter (gpt-neox #1008, after models had been trained so)."""
    if step < warmup_steps:
        return cosine(step, steps, warmup_steps, floor)
    return max(cosine(step, steps, warmup_steps, floor=0.0), floor)


def wave_from_the_start(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """The wave is counted from step 0, so it has gone part of the way down when the warm-up ends,
    and the rate drops. It begins where the warm-up ends."""
    if step < warmup_steps:
        return cosine(step, steps, warmup_steps, floor)
    return cosine(step, steps, 0, floor)


def rises_again(step: int, steps: int, warmup_steps: int, floor: float = 0.1) -> float:
    """After the last step the cosine goes up again. Runs are prolonged, and some schedulers are
    asked twice an update: hold the share at 1 (transformers #35484)."""
    if step < warmup_steps:
        return cosine(step, steps, warmup_steps, floor)
    share = (step + 1 - warmup_steps) / (steps - warmup_steps)
    return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2


def clips_after_the_step(
    objective: nn.Module,
    batches: Sequence[tuple[torch.Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    max_norm: float,
) -> torch.Tensor:
    """The gradients are clipped when the step has been made with them already. Nothing looks wrong,
    and max_norm does nothing: clip between backward and step (graphstorm #1366, VGRNN #4)."""
    for batch in batches:
        loss = objective(*batch) / len(batches)
        loss.backward()
    optimizer.step()
    norm = clip_gradients(objective.parameters(), max_norm)
    optimizer.zero_grad()
    return norm


def sum_of_the_batches(
    objective: nn.Module,
    batches: Sequence[tuple[torch.Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    max_norm: float,
) -> torch.Tensor:
    """The batches' gradients are added up and not averaged, so the gradient is as many times too
    long: divide each loss by their number (transformers #37197)."""
    for batch in batches:
        objective(*batch).backward()
    norm = clip_gradients(objective.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def clips_each_batch(
    objective: nn.Module,
    batches: Sequence[tuple[torch.Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    max_norm: float,
) -> torch.Tensor:
    """The gradients are clipped after every batch, while they are still being added up, so the first
    batches are shortened again and again: clip once, when all are in (transformers #1563)."""
    for batch in batches:
        (objective(*batch) / len(batches)).backward()
        norm = clip_gradients(objective.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def gradients_stay(
    objective: nn.Module,
    batches: Sequence[tuple[torch.Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    max_norm: float,
) -> torch.Tensor:
    """The gradients are not cleared, and backward() adds to what is there: the next update moves by
    this one's gradient too. Call optimizer.zero_grad() after the step."""
    for batch in batches:
        (objective(*batch) / len(batches)).backward()
    norm = clip_gradients(objective.parameters(), max_norm)
    optimizer.step()
    return norm


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "cosine": (
        warm_up_from_zero,
        descent_one_late,
        ends_at_zero,
        held_at_the_floor,
        wave_from_the_start,
        rises_again,
    ),
    "mended_update": (clips_after_the_step, sum_of_the_batches, clips_each_batch, gradients_stay),
}
"""The wrong versions of each task."""
