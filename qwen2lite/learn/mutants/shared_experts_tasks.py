"""Wrong answers to the tasks of the exercise 62_shared_experts that are no part of the model.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def gate_forgotten(mixed_BTD: Tensor, shared_BTD: Tensor, scores_BTE: Tensor) -> Tensor:
    """The shared expert counts in full: its gate is not used, or is a softmax, which of a single
    score is always 1. It is the sigmoid of the score (loaded and never used it was for a while in
    NousResearch/torchtitan, #36)."""
    return mixed_BTD + shared_BTD


def score_for_share(mixed_BTD: Tensor, shared_BTD: Tensor, scores_BTE: Tensor) -> Tensor:
    """The score multiplies as it is, of any size and sign. The sigmoid makes it a share between 0
    and 1."""
    return mixed_BTD + scores_BTE * shared_BTD


def either_or(mixed_BTD: Tensor, shared_BTD: Tensor, scores_BTE: Tensor) -> Tensor:
    """The gate divides between the shared and the routed experts. It says only how much of the
    shared one is added; the routed ones stay as they are."""
    return torch.lerp(mixed_BTD, shared_BTD, scores_BTE.sigmoid())


def gate_on_both(mixed_BTD: Tensor, shared_BTD: Tensor, scores_BTE: Tensor) -> Tensor:
    """The gate is on the sum. The routed experts have their own weights, from the router: the gate
    belongs to the shared one alone."""
    return scores_BTE.sigmoid() * (mixed_BTD + shared_BTD)


def the_wrong_way(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """The busy experts are helped and the idle ones held back, so that the busy get busier still.
    Who had more than the mean goes down."""
    return bias_E + rate * (counts_E - counts_E.float().mean()).sign()


def by_how_much(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """The step grows with the distance from the mean, which is in tokens: with thousands of them
    one step throws all choices over. Only the direction counts, and each step is `rate`: take the
    sign."""
    return bias_E + rate * (counts_E.float().mean() - counts_E)


def idle_ones_only(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """Only the experts below the mean are moved. The others go down by as much: an expert that
    everybody wants has to lose some."""
    return bias_E + rate * (counts_E < counts_E.float().mean())


def whole_mean(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """The mean is cut to a whole number, and who has that many is taken for balanced: 2, 1, 2 and 2
    have a mean of 1.75."""
    return bias_E + rate * (counts_E.sum() // len(counts_E) - counts_E).sign()


def bias_in_the_weights(
    logits_XE: Tensor, bias_E: Tensor, num_experts_per_tok: int
) -> tuple[Tensor, Tensor]:
    """The bias is in the weights. It may say who is *chosen*; how much the chosen count is the
    router's business alone, or an idle expert shouts as soon as it gets a token (Ernie 4.5 in
    transformers had it so, #39581, and DeepSeek-V3 in vLLM, #12002)."""
    biased_XE = logits_XE.softmax(-1, dtype=torch.float32) + bias_E
    weights, chosen = biased_XE.topk(num_experts_per_tok, dim=-1)
    return weights, chosen


def bias_not_used(
    logits_XE: Tensor, bias_E: Tensor, num_experts_per_tok: int
) -> tuple[Tensor, Tensor]:
    """The bias changes nothing: the best are chosen from the probabilities as they are. It has to be
    added to the probabilities before `topk`."""
    weights, chosen = logits_XE.softmax(-1, dtype=torch.float32).topk(num_experts_per_tok, dim=-1)
    return weights, chosen


def bias_on_the_scores(
    logits_XE: Tensor, bias_E: Tensor, num_experts_per_tok: int
) -> tuple[Tensor, Tensor]:
    """The bias is added to the scores, before the softmax, so that it is in every probability. It
    is added to the probabilities, and only for the choice."""
    biased_XE = (logits_XE + bias_E).softmax(-1, dtype=torch.float32)
    weights, chosen = biased_XE.topk(num_experts_per_tok, dim=-1)
    return weights, chosen


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "add_shared": (gate_forgotten, score_for_share, either_or, gate_on_both),
    "moved_bias": (the_wrong_way, by_how_much, idle_ones_only, whole_mean),
    "mended_biased": (bias_in_the_weights, bias_not_used, bias_on_the_scores),
}
"""The wrong versions of each task."""
