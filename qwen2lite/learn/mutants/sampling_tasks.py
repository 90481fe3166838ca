"""Wrong answers to the tasks of the exercise 33_sampling."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from qwen2lite.infer.sample import Sampler, Sampling, sample


def reseeded_each_step(settings: Sampling) -> Sampler:
    """Every step makes a new generator with the same seed, so every token is drawn with the same
    number. A phone app did so with the clock's second (private-mind #255): make it once, outside."""

    def choose(logits_BV: Tensor, ids_BT: Tensor) -> Tensor:
        generator = torch.Generator()
        if settings.seed is not None:
            generator.manual_seed(settings.seed)
        return sample(logits_BV, ids_BT, settings, generator)

    return choose


def seed_not_used(settings: Sampling) -> Sampler:
    """The seed is not used, and nobody can repeat a run."""
    return replace(settings, seed=None).sampler()


def the_same_seed_for_all(settings: Sampling) -> Sampler:
    """Every sampler gets the same seed, whatever was asked for."""
    return replace(settings, seed=0).sampler()


def always_repeats(settings: Sampling) -> Sampler:
    """Without a seed each run is to be different. A new `torch.Generator()` begins with a fixed one:
    call its `.seed()`."""
    return replace(settings, seed=settings.seed or 67280421310721).sampler()


def zero_taken_for_none(settings: Sampling) -> Sampler:
    """`if settings.seed:` is false for a seed of 0, and who asks for it gets another text each time.
    0 is a seed like others: ask `is None`."""
    return replace(settings, seed=settings.seed or None).sampler()


def seed_counted_up(settings: Sampling) -> Sampler:
    """Every step makes a new generator and seeds it with the seed and the number of the step. Then
    seed 8 draws at once what seed 7 draws a step later. Make it once, outside, and let it run on."""
    start = torch.Generator().seed() if settings.seed is None else settings.seed
    seeds = count(start)

    def choose(logits_BV: Tensor, ids_BT: Tensor) -> Tensor:
        return sample(logits_BV, ids_BT, settings, torch.Generator().manual_seed(next(seeds)))

    return choose


def one_generator_for_all(settings: Sampling) -> Sampler:
    """All samplers draw from one generator; `torch.manual_seed` seeds that of the whole program. Who
    draws in between takes numbers away, and the text changes: make one for each sampler."""
    if settings.seed is None:
        torch.seed()
    else:
        torch.manual_seed(settings.seed)
    return lambda logits_BV, ids_BT: sample(logits_BV, ids_BT, settings)


def share_of_the_best(logits_V: Tensor, kept: int) -> Tensor:
    """This is the share of the best ones; wanted is that of all the others."""
    return logits_V.softmax(-1).topk(kept).values.sum()


def by_id(logits_V: Tensor, kept: int) -> Tensor:
    """The first ids are left out. The ids say nothing about the order: sort by probability first."""
    return logits_V.softmax(-1)[kept:].sum()


def one_off(logits_V: Tensor, kept: int) -> Tensor:
    """One token too many is counted: the worst of the best belongs to the best."""
    return logits_V.softmax(-1).sort(descending=True).values[kept - 1 :].sum()


def counted(logits_V: Tensor, kept: int) -> Tensor:
    """This is how many tokens there are, as a share; wanted is their probability."""
    return torch.tensor(1 - kept / len(logits_V))


def cut_before_the_softmax(logits_V: Tensor, kept: int) -> Tensor:
    """The softmax is taken of the tail alone, and so makes 1. Take it of all tokens, and cut then."""
    return logits_V.sort(descending=True).values[kept:].softmax(-1).sum()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "mended_sampler": (
        reseeded_each_step,
        seed_not_used,
        the_same_seed_for_all,
        always_repeats,
        zero_taken_for_none,
        seed_counted_up,
        one_generator_for_all,
    ),
    "tail_share": (share_of_the_best, by_id, one_off, counted, cut_before_the_softmax),
}
"""The wrong versions of each task."""
