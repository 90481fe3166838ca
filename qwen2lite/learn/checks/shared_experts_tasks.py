"""What the exercise 62_shared_experts asks beside the layer and the loss: a gate and a bias."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.shared_experts_tasks import MUTANTS

Part = Callable[..., Any]


def check_add_shared(add_shared: Part) -> Iterator[str]:
    """One token by hand, a gate of a token each, random ones."""
    scores = torch.tensor([[[math.log(3.0)]]])
    by_hand = (torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[4.0, 8.0]]]), scores)
    _require_sum(add_shared, by_hand, torch.tensor([[[13.0, 26.0]]]))
    yield "by hand: open by 3/4, 10 + 0.75 · 4 = 13"

    mixed, shared = (random_normal(2, 3, 5, seed=seed) for seed in (1, 2))
    scores = 2 * random_normal(2, 3, 1, seed=3)
    want = mixed + shared / (1 + (-scores).exp())
    _require_sum(add_shared, (mixed, shared, scores), want)
    yield "every token has a gate of its own"


def _require_sum(add_shared: Part, inputs: tuple[Tensor, Tensor, Tensor], want: Tensor) -> None:
    got = call(add_shared, *inputs)
    require_tensor(got, want.shape, torch.float32, "add_shared")
    if not same(got, want):
        worst = int((got - want).abs().amax(-1).flatten().nan_to_num(torch.inf).argmax())
        mixed, shared, scores = (one.flatten(0, 1)[worst] for one in inputs)
        raise Mistake(
            f"With the routed experts' {numbers(mixed)}, the shared one's {numbers(shared)} and its "
            f"gate's score {float(scores):.4g}, wanted {numbers(want.flatten(0, 1)[worst])}, got "
            f"{numbers(got.flatten(0, 1)[worst])}.",
            usual_reason(MUTANTS["add_shared"], got, *inputs),
        )


def check_moved_bias(moved_bias: Part) -> Iterator[str]:
    """Three experts by hand, one in balance, several steps."""
    bias_E, counts_E = torch.tensor([0.0, 0.5, -0.5]), torch.tensor([9, 1, 2])
    _require_bias(moved_bias, bias_E, counts_E, 0.1, [-0.1, 0.6, -0.4])
    yield "by hand: 9, 1 and 2 tokens, the mean is 4: down, up, up"

    counts_E = torch.tensor([4, 7, 1])
    _require_bias(moved_bias, bias_E, counts_E, 0.001, [0.0, 0.499, -0.499])
    yield "who has the mean stays"

    bias_E, counts_E = torch.zeros(4), torch.tensor([1000, 0, 0, 0])
    _require_bias(moved_bias, bias_E, counts_E, 0.01, [-0.01, 0.01, 0.01, 0.01])
    yield "a thousand tokens too many move no further than one"

    counts_E = torch.tensor([2, 1, 2, 2])
    _require_bias(moved_bias, bias_E, counts_E, 0.01, [-0.01, 0.01, -0.01, -0.01])
    yield "a mean of 1.75 is not a whole number"


def _require_bias(
    moved_bias: Part, bias_E: Tensor, counts_E: Tensor, rate: float, values: list[float]
) -> None:
    got, want = call(moved_bias, bias_E, counts_E, rate), torch.tensor(values)
    require_tensor(got, want.shape, torch.float32, "moved_bias")
    if not same(got, want):
        raise Mistake(
            f"The biases {numbers(bias_E)} after {counts_E.tolist()} tokens, at a rate of {rate}, "
            f"become {numbers(want)}, and yours {numbers(got)}.",
            usual_reason(MUTANTS["moved_bias"], got, bias_E, counts_E, rate),
        )


# Of three experts the second is ahead; a bias brings the first in.
_PROBABILITIES = [[0.1, 0.6, 0.3], [0.3, 0.2, 0.5]]


def check_mended_biased(mended_biased: Part) -> Iterator[str]:
    """Two tokens by hand, no bias, random scores. The order of the chosen is free."""
    logits_XE = torch.tensor(_PROBABILITIES).log() + 2
    bias_E = torch.tensor([0.25, 0.0, 0.0])
    _require_routed(mended_biased, (logits_XE, bias_E, 2), [[0.1, 0.6, 0], [0.3, 0, 0.5]])
    yield "by hand: a bias of 0.25 brings the first expert in, and its weight stays 0.1"

    _require_routed(mended_biased, (logits_XE, torch.zeros(3), 1), [[0, 0.6, 0], [0, 0, 0.5]])
    yield "without a bias, the best"

    logits_XE, bias_E = random_normal(9, 6, seed=1), 0.1 * random_normal(6, seed=2)
    powers_XE = logits_XE.exp() / logits_XE.exp().sum(1, keepdim=True)
    least = (powers_XE + bias_E).sort(1).values[:, -3, None]
    want = powers_XE.where(powers_XE + bias_E >= least, 0.0).tolist()
    _require_routed(mended_biased, (logits_XE, bias_E, 3), want)
    yield "right for nine tokens and six experts"


def _require_routed(
    mended_biased: Part, inputs: tuple[Tensor, Tensor, int], want: list[list[float]]
) -> None:
    logits_XE, bias_E, number = inputs
    got = call(mended_biased, *inputs)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(
            f"mended_biased returned {describe(got)}, and a pair was wanted: weights and chosen."
        )
    shape = [len(logits_XE), number]
    require_tensor(got[0], shape, torch.float32, "mended_biased, as its first,")
    require_tensor(got[1], shape, torch.int64, "mended_biased, as its second,")
    got_XE, want_XE = _in_rows(got, logits_XE), torch.tensor(want).float()
    if not same(got_XE, want_XE):
        token = int((got_XE - want_XE).abs().amax(1).argmax())
        mutants = [_by_rows(mutant) for mutant in MUTANTS["mended_biased"]]
        raise Mistake(
            f"With the probabilities {numbers(logits_XE[token].softmax(0))} and the biases "
            f"{numbers(bias_E)}, the {number} chosen have the weights {numbers(want_XE[token])}, "
            f"and yours {numbers(got_XE[token])}.",
            usual_reason(mutants, got_XE, *inputs),
        )


def _in_rows(routed: tuple[Tensor, Tensor], logits_XE: Tensor) -> Tensor:
    """One row of all experts a token; 0 for those not chosen."""
    return torch.zeros_like(logits_XE).scatter(1, routed[1], routed[0].detach())


def _by_rows(mutant: Part) -> Part:
    def answer(*inputs: Any) -> Tensor:
        return _in_rows(mutant(*inputs), inputs[0])

    answer.__doc__ = mutant.__doc__
    return answer
