"""Wrong answers to the other tasks of the exercise 73_dpo: two of several answers, what is dropped.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Two = tuple[int, int] | None


def first_and_last(scores: Sequence[float]) -> Two:
    """These are the first and the last answer. Samples come in any order; only their rewards say which
    is better."""
    return _unless_all_equal(scores, 0, len(scores) - 1)


def worst_first(scores: Sequence[float]) -> Two:
    """The two are swapped: the best comes first. A policy that learnt from this pair as it is would get
    worse."""
    best, worst = _extremes(scores)
    return _unless_all_equal(scores, worst, best)


def two_best(scores: Sequence[float]) -> Two:
    """These are the best answer and the second best. The rejected one is the worst: from there the
    reward model's word is surest."""
    ranked = sorted(range(len(scores)), key=lambda number: -scores[number])
    return _unless_all_equal(scores, ranked[0], ranked[1])


def scores_for_numbers(scores: Sequence[float]) -> tuple[float, float] | None:
    """These are the rewards themselves. The numbers of the answers are wanted, counted from 0, since
    an answer has to be found by them."""
    return (max(scores), min(scores)) if max(scores) > min(scores) else None


def furthest_from_0(scores: Sequence[float]) -> Two:
    """Rewards are compared by their size, without their sign. One far below 0 is a bad one."""
    sizes = [abs(score) for score in scores]
    return _unless_all_equal(scores, sizes.index(max(sizes)), sizes.index(min(sizes)))


def ties_accepted(scores: Sequence[float]) -> Two:
    """Where all rewards are equal no answer is better, and such a pair would teach chance. Return None
    there."""
    return _extremes(scores)


def any_tie_refused(scores: Sequence[float]) -> Two:
    """Two equal rewards among several are no reason to give up: some answer is better than another.
    Return None only where all are equal."""
    return _extremes(scores) if len(set(scores)) == len(scores) else None


def number_0_lost(scores: Sequence[float]) -> Two:
    """The answer with the number 0 is lost, since 0 is false in Python. Compare the rewards, and don't
    ask whether a number is true."""
    best, worst = _extremes(scores)
    return (best, worst) if best and worst else None


def _extremes(scores: Sequence[float]) -> tuple[int, int]:
    values = list(scores)
    return values.index(max(values)), values.index(min(values))


def _unless_all_equal(scores: Sequence[float], first: int, second: int) -> Two:
    return (first, second) if max(scores) > min(scores) else None


def rescaled(x: Tensor, keep: float) -> Tensor:
    """What is kept is too large: PyTorch's dropout divides by the share that it keeps, so that the
    expected value stays. The paper leaves what is kept as it is. Draw yourself which numbers stay, or
    multiply by `keep` after the dropout."""
    return F.dropout(x, 1 - keep)


def made_smaller(x: Tensor, keep: float) -> Tensor:
    """Numbers are made smaller instead of dropped. On average that is the same, but here each number is
    either kept as it is or 0."""
    return keep * x


def kept_for_dropped(x: Tensor, keep: float) -> Tensor:
    """The share to keep is taken for the share to drop. A number from 0 to 1, drawn evenly, is below
    `keep` with a probability of `keep`: those are kept."""
    return x * (torch.rand_like(x) >= keep)


def nothing_dropped(x: Tensor, keep: float) -> Tensor:
    """Nothing is dropped. (F.dropout does nothing when training is False: no rescaling then, and no
    dropping either.)"""
    return F.dropout(x, 1 - keep, training=False) * 1.0


def always_the_same(x: Tensor, keep: float) -> Tensor:
    """The same numbers are kept each time, so that the others never move. Draw anew in each call, with
    no seed of your own."""
    chance = torch.Generator().manual_seed(0)
    return x * (torch.rand(x.shape, generator=chance) < keep)


def largest_kept(x: Tensor, keep: float) -> Tensor:
    """The largest numbers are kept. That is the other rule, OnTIES; here chance decides, and a small
    number is as likely to stay as a large one."""
    count = round(keep * x.numel())
    return torch.where(x.abs() >= x.abs().flatten().topk(count).values[-1], x, 0.0)


def whole_rows(x: Tensor, keep: float) -> Tensor:
    """Whole rows or columns are kept or dropped. Each number has its own chance: draw as many as x has,
    as torch.rand_like does."""
    return x * (torch.rand(len(x))[:, None] < keep)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "best_and_worst": (
        first_and_last, worst_first, two_best, scores_for_numbers, furthest_from_0, ties_accepted,
        any_tie_refused, number_0_lost,
    ),
    "mended_drop": (
        rescaled, made_smaller, kept_for_dropped, nothing_dropped, always_the_same, largest_kept,
        whole_rows,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
