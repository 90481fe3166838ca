"""Wrong versions of `route`, most of them from public projects.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.moe import route

Routed = tuple[Tensor, Tensor]


def softmax_of_the_kept(
    logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool
) -> Routed:
    """The kept weights come to 1, although norm_topk_prob is off. Either the best scores were
    picked first and the softmax ran over them alone, or the weights were divided by their sum
    without asking: both give the same numbers. Qwen2's router was trained with a softmax over all
    experts, of which the best are kept as they are (Megatron had it the other way, and a converted
    Qwen was lost, QwenLM/Qwen3 #687; an OLMoE drifts off after a few words, mlxcel #391)."""
    scores, chosen = logits_XE.topk(num_experts_per_tok, dim=-1)
    return scores.softmax(-1, dtype=torch.float32), chosen


def always_renormalised(
    logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool
) -> Routed:
    return route(logits_XE, num_experts_per_tok, True)


# The same answer for the same scores: one can't tell from outside which of the two it was.
always_renormalised.__doc__ = softmax_of_the_kept.__doc__


def never_renormalised(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """With norm_topk_prob the kept weights are to be divided by their sum, and are not. Qwen2 has
    it off, other models on (forgotten for one of them, the gradients came out far too large:
    torchtitan #1448)."""
    return route(logits_XE, num_experts_per_tok, False)


def scores_for_weights(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """The weights are the router's scores as they are, of any size and sign. They are
    probabilities: the softmax is missing where nothing is renormalised (SGLang #35160)."""
    if norm_topk_prob:
        return route(logits_XE, num_experts_per_tok, True)
    weights, chosen = logits_XE.float().topk(num_experts_per_tok, dim=-1)
    return weights, chosen


def sigmoids(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """Every score goes through a sigmoid of its own. That is DeepSeek-V3's router; Qwen2's is a
    softmax, in which the experts compete."""
    weights, chosen = logits_XE.float().sigmoid().topk(num_experts_per_tok, dim=-1)
    return (weights / weights.sum(-1, keepdim=True) if norm_topk_prob else weights), chosen


def softmax_over_tokens(
    logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool
) -> Routed:
    """The softmax runs over the tokens, so that each token's choice depends on the others. It runs
    over the experts, the last dimension."""
    weights, chosen = logits_XE.float().softmax(0).topk(num_experts_per_tok, dim=-1)
    return (weights / weights.sum(-1, keepdim=True) if norm_topk_prob else weights), chosen


def least_likely(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """The experts with the lowest scores are chosen. `topk` takes the highest; a sort is upwards
    unless `descending=True` is said."""
    probabilities_XE = logits_XE.softmax(-1, dtype=torch.float32)
    weights, chosen = probabilities_XE.topk(num_experts_per_tok, dim=-1, largest=False)
    return (weights / weights.sum(-1, keepdim=True) if norm_topk_prob else weights), chosen


def in_half_precision(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """The softmax runs in the scores' own dtype. In bfloat16 close experts get equal weights, and
    which is chosen is chance: say `dtype=torch.float32`."""
    weights, chosen = logits_XE.softmax(-1).topk(num_experts_per_tok, dim=-1)
    return (weights / weights.sum(-1, keepdim=True) if norm_topk_prob else weights), chosen


def no_maximum(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """e is raised to the scores themselves, and e to the 89 has no float32: `.softmax` subtracts a
    token's largest score first, which changes nothing else."""
    powers_XE = logits_XE.float().exp()
    weights, chosen = (powers_XE / powers_XE.sum(-1, keepdim=True)).topk(num_experts_per_tok)
    return (weights / weights.sum(-1, keepdim=True) if norm_topk_prob else weights), chosen


def weights_detached(logits_XE: Tensor, num_experts_per_tok: int, norm_topk_prob: bool) -> Routed:
    """No gradient goes through the weights. Choosing has none, so they are all from which the
    router can learn: whatever stands in `.detach()`, `.data` or `torch.no_grad()`, they may not."""
    weights, chosen = route(logits_XE, num_experts_per_tok, norm_topk_prob)
    return weights.detach(), chosen


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "route": (
        softmax_of_the_kept,
        always_renormalised,
        never_renormalised,
        scores_for_weights,
        sigmoids,
        softmax_over_tokens,
        least_likely,
        in_half_precision,
        no_maximum,
        weights_detached,
    ),
}
"""The wrong versions of the part."""
