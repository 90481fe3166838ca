"""Wrong answers to the exercise 51_rope_base: circles, bases, perplexities, and a config."""

import math
from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.evaluate.perplexity import perplexity_by_position
from qwen2lite.model.rope import rotary_frequencies


def _within(head_dim: int, rope_theta: float, length: int, angle: float) -> list[int]:
    frequencies = rotary_frequencies(head_dim, rope_theta).tolist()
    return [i for i, f in enumerate(frequencies) if length * f < angle]


def a_circle_of_one_radian(head_dim: int, rope_theta: float, length: int) -> list[int]:
    """A circle is taken for one radian. It has 2π of them: a pair is round after 2π / f tokens."""
    return _within(head_dim, rope_theta, length, 1.0)


def those_that_turned(head_dim: int, rope_theta: float, length: int) -> list[int]:
    """These are the pairs that did come round. The ones that meet new angles in a longer text are the
    others, the slow ones."""
    slow = _within(head_dim, rope_theta, length, 2 * math.pi)
    return [i for i in range(head_dim // 2) if i not in slow]


def exponent_halved(head_dim: int, rope_theta: float, length: int) -> list[int]:
    """The exponent is -i/H. It is -2i/H: there are H/2 pairs, and the last should come near 1/base."""
    return _within(head_dim, rope_theta**0.5, length, 2 * math.pi)


def counted_from_one(head_dim: int, rope_theta: float, length: int) -> list[int]:
    """Pairs are counted from 1. Pair 0 is the first, the one that turns a radian a token."""
    return [i + 1 for i in _within(head_dim, rope_theta, length, 2 * math.pi)]


def by_the_slowest_pair(head_dim: int, rope_theta: float, trained: int, longer: int) -> float:
    """Only the slowest pair is asked. Raising the base slows the last pair most and the first not at
    all, so of those that never came round the *first* is the one that needs the largest base."""
    return rope_theta * (longer / trained) ** (head_dim / (head_dim - 2))


def base_times_length(head_dim: int, rope_theta: float, trained: int, longer: int) -> float:
    """The base grows as much as the length. A pair's frequency is the base to the power of -2i/H, less
    than 1, so the base has to grow by a higher power of it."""
    return rope_theta * longer / trained


def circles_of_the_longer_text(
    head_dim: int, rope_theta: float, trained: int, longer: int
) -> float:
    """Circles are counted in the longer text. What counts is which angles were seen in *training*."""
    first = _within(head_dim, rope_theta, longer, 2 * math.pi)[0]
    return rope_theta * (longer / trained) ** (head_dim / (2 * first))


def mean_of_perplexities(losses: torch.Tensor, width: int) -> list[float]:
    """Each loss is made a perplexity before the mean. One token of probability 1/1000 then drowns all
    others: take the mean of the losses, then e to that."""
    return [float(group.exp().mean()) for group in losses.split(width, dim=1)]


def of_the_windows(losses: torch.Tensor, width: int) -> list[float]:
    """This is a number for each window. Windows are rows; positions are columns, and those are to be
    taken together."""
    return [float(row.mean().exp()) for row in losses]


def still_losses(losses: torch.Tensor, width: int) -> list[float]:
    """These are mean losses, in nats. A perplexity is e to that."""
    return [math.log(value) for value in perplexity_by_position(losses, width)]


def last_group_lost(losses: torch.Tensor, width: int) -> list[float]:
    """The last group, which has fewer positions, is left out. Its tokens are the furthest of all, and
    just there a model breaks."""
    whole = losses.shape[1] // width * width
    return perplexity_by_position(losses[:, :whole], width)


def only_the_old_place(config: dict[str, Any]) -> float:
    """The base is looked for where older files have it. Newer ones have it in "rope_parameters", and
    the default of 10,000 then turns every query and key wrongly without a word (SpecForge #702,
    DeepSpeed #8345)."""
    return float(config.get("rope_theta", 10_000.0))


def only_the_new_place(config: dict[str, Any]) -> float:
    """The base is looked for where newer files have it. Qwen2's own config.json has "rope_theta" at the
    top: ask there too (SGLang's Qwen3 stopped asking for a time, #22739)."""
    return float((config.get("rope_parameters") or {}).get("rope_theta", 10_000.0))


def a_million_by_default(config: dict[str, Any]) -> float:
    """Where a file has no base, 1,000,000 is taken, since Qwen2 has it. Older files leave it out and
    mean 10,000; a default of a million makes such a model's base a hundred times too large."""
    newer = config.get("rope_parameters") or {}
    return float(newer.get("rope_theta", config.get("rope_theta", 1_000_000.0)))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "never_turned": (
        a_circle_of_one_radian,
        those_that_turned,
        exponent_halved,
        counted_from_one,
    ),
    "smallest_base": (by_the_slowest_pair, base_times_length, circles_of_the_longer_text),
    "perplexity_by_position": (
        mean_of_perplexities,
        of_the_windows,
        still_losses,
        last_group_lost,
    ),
    "mended_base": (only_the_old_place, only_the_new_place, a_million_by_default),
}
"""The wrong versions of each task."""
