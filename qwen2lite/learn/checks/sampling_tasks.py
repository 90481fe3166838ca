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
    reseeded_each_step,
    seed_not_used,
    the_same_seed_for_all,
)

Part = Callable[..., Any]

_STEPS = 12


def check_mended_sampler(mended_sampler: Part) -> Iterator[str]:
    """Twelve draws from fifty equal tokens: they vary, a seed repeats them, another one doesn't."""

    def drawn(seed: int | None) -> list[int]:
        choose = call(mended_sampler, Sampling(temperature=1.0, seed=seed))
        if not callable(choose):
            raise Mistake(f"mended_sampler returned {describe(choose)}; a function was wanted.")
        scores, history = torch.zeros(1, 50), torch.zeros(1, 1, dtype=torch.long)
        return [int(call(choose, scores, history, name="the sampler")) for _ in range(_STEPS)]

    first = drawn(7)
    if len(set(first)) < 3:
        wrong = f"Twelve draws from fifty equal tokens give {first}."
        raise Mistake(wrong, told_by(reseeded_each_step))
    yield "fifty equal tokens: the draws vary from step to step"
    if drawn(7) != first:
        raise Mistake(
            "Two samplers of the same seed draw different tokens.", told_by(seed_not_used)
        )
    yield "the same seed, the same tokens"
    if drawn(8) == first:
        wrong = "Seeds 7 and 8 give the same twelve tokens."
        raise Mistake(wrong, told_by(the_same_seed_for_all))
    if drawn(None) == drawn(None):
        wrong = "Without a seed, two samplers give the same twelve tokens."
        raise Mistake(wrong, told_by(always_repeats))
    yield "another seed, or none, and they are others"


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
