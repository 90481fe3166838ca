"""What the exercise 33_sampling asks beside the sampler: seeds to mend, and a measurement."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.infer.sample import Sampling
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    random_normal,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.sampling_tasks import (
    MUTANTS,
    always_repeats,
    one_generator_for_all,
    reseeded_each_step,
    seed_counted_up,
    seed_not_used,
    the_same_seed_for_all,
    zero_taken_for_none,
)

Part = Callable[..., Any]

_STEPS = 12


def check_mended_sampler(mended_sampler: Part) -> Iterator[str]:
    """Twelve draws from fifty equal tokens: they vary, a seed repeats them, another one doesn't."""

    def drawn(*seeds: int | None) -> list[list[int]]:
        return _in_turns(mended_sampler, *seeds)

    [first] = drawn(7)
    if len(set(first)) < 3:
        wrong = f"Twelve draws from fifty equal tokens give {first}."
        raise Mistake(wrong, told_by(reseeded_each_step))
    yield "fifty equal tokens: the draws vary from step to step"
    for seed, known in ((7, seed_not_used), (0, zero_taken_for_none)):
        if drawn(seed) != drawn(seed):
            wrong = f"Two samplers of the same seed, {seed}, draw different tokens."
            raise Mistake(wrong, told_by(known))
    yield "the same seed, the same tokens, also for a seed of 0"
    [second] = drawn(8)
    _require_others(first, second)
    if drawn(None) == drawn(None):
        wrong = "Without a seed, two samplers give the same twelve tokens."
        raise Mistake(wrong, told_by(always_repeats))
    yield "another seed, or none, and they are others"
    for seed, alone, together in zip((7, 8), (first, second), drawn(7, 8), strict=True):
        if together != alone:
            wrong = f"Alone, seed {seed} draws {alone}, and in turns with another one {together}."
            raise Mistake(wrong, told_by(one_generator_for_all))
    yield "two samplers in turns draw what each draws alone"


def _in_turns(mended_sampler: Part, *seeds: int | None) -> list[list[int]]:
    """What samplers of these seeds draw, token by token in turns; all are made before they draw."""
    samplers = [call(mended_sampler, Sampling(temperature=1.0, seed=seed)) for seed in seeds]
    for choose in samplers:
        if not callable(choose):
            raise Mistake(f"mended_sampler returned {describe(choose)}; a function was wanted.")
    scores, history = torch.zeros(1, 50), torch.zeros(1, 1, dtype=torch.long)
    drawn: list[list[int]] = [[] for _ in seeds]
    for _ in range(_STEPS):
        for tokens, choose in zip(drawn, samplers, strict=True):
            tokens.append(int(call(choose, scores, history, name="the sampler")))
    return drawn


def _require_others(first: list[int], second: list[int]) -> None:
    """Raises Mistake where seeds 7 and 8 draw the same tokens, at once or a step apart."""
    if first == second:
        wrong = "Seeds 7 and 8 give the same twelve tokens."
        raise Mistake(wrong, told_by(the_same_seed_for_all))
    if first[1:] == second[:-1] or second[1:] == first[:-1]:
        wrong = f"Seed 7 draws {first}, and seed 8 the same a step apart: {second}."
        raise Mistake(wrong, told_by(seed_counted_up))


def check_tail_share(tail_share: Part) -> Iterator[str]:
    """Five shares by hand, then random scores, sorted by Python."""
    _require_share(tail_share, torch.tensor([0.1, 0.45, 0.1, 0.3, 0.05]).log(), 2, 0.25)
    yield "shares of 10, 45, 10, 30 and 5 %: the best two leave 25 %"

    scores_V = 2 * random_normal(101, seed=8)
    shares = sorted(scores_V.double().exp().tolist())
    for kept in (1, 20, 100):
        _require_share(tail_share, scores_V, kept, sum(shares[: 101 - kept]) / sum(shares))
    yield "a softmax of all tokens, and all but the best of it"


def _require_share(part: Part, scores_V: torch.Tensor, kept: int, want: float) -> None:
    got = call(part, scores_V, kept)
    if not isinstance(got, float | torch.Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"tail_share returned {describe(got)}; one number was wanted.")
    share = torch.as_tensor(float(got))
    if abs(float(share) - want) > 1e-5:
        why = usual_reason(MUTANTS["tail_share"], share, scores_V, kept)
        raise Mistake(
            f"Of {len(scores_V)} tokens the best {kept} leave {want:.4g}, "
            f"and yours says {float(share):.4g}.",
            why,
        )
