"""Wrong answers to the tasks of the exercise 61_routing that are no part of the model.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Choices = tuple[Tensor, list[int]]


def orders_counted(experts: int, chosen: int) -> int:
    """Every order is counted by itself. The experts' answers are added up, so that 3 and 7 are the
    same team as 7 and 3: `math.comb`, not `math.perm`."""
    return math.perm(experts, chosen)


def twice_the_same(experts: int, chosen: int) -> int:
    """Each choice is taken among all experts, so that one expert may be chosen twice. `topk` gives
    different ones."""
    return experts**chosen


def any_number(experts: int, chosen: int) -> int:
    """Teams of every size are counted. A token uses exactly k experts."""
    return 2**experts


def weights_left_out(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """The experts' answers are added up without their weights."""
    return _one_by_one(x_XD, torch.ones_like(weights), chosen, experts)


def weighted_before(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """The weight is on what goes into an expert. An expert isn't linear, so half of its input is
    not half of its output: the weight goes on what comes out."""
    mixed_XD = torch.zeros_like(x_XD)
    for token, numbers in enumerate(chosen.tolist()):
        for place, number in enumerate(numbers):
            mixed_XD[token] += experts[number]((weights[token, place] * x_XD[token])[None])[0]
    return mixed_XD


def place_for_number(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """The place in the row is taken for the expert's number, so that every token goes to the first
    k experts. The number is what stands at that place of `chosen`."""
    places = torch.arange(chosen.shape[1]).expand_as(chosen)
    return _one_by_one(x_XD, weights, places, experts)


def only_the_last(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """Each expert's answer replaces what was there, so that of a token's experts only the last
    counts: add them up with `+=`."""
    return _one_by_one(x_XD, weights[:, -1:], chosen[:, -1:], experts)


def places_for_tokens(chosen: Tensor, num_experts: int) -> Choices:
    """These are places in the flattened row of choices. Each token stands there k times, so divide
    by k (whole numbers, `//`) to get the token."""
    flat = chosen.flatten()
    return flat.argsort(stable=True), flat.bincount(minlength=num_experts).tolist()


def remainder_for_tokens(chosen: Tensor, num_experts: int) -> Choices:
    """The remainder of a place says which of its k choices it was. Which token it was says the
    quotient: `//`, not `%`."""
    flat = chosen.flatten()
    tokens = flat.argsort(stable=True) % chosen.shape[1]
    return tokens, flat.bincount(minlength=num_experts).tolist()


def idle_ones_forgotten(chosen: Tensor, num_experts: int) -> Choices:
    """The experts that nobody chose have no count, so that all behind them get the tokens of
    another one: `minlength` makes `bincount` give as many numbers as there are experts."""
    flat = chosen.flatten()
    tokens = flat.argsort(stable=True) // chosen.shape[1]
    return tokens, [count for count in flat.bincount().tolist() if count]


def not_sorted(chosen: Tensor, num_experts: int) -> Choices:
    """The tokens are still in the order of the text. They have to lie by expert, so that each
    expert's are one stretch: `argsort` of the experts' numbers says in which order."""
    flat = chosen.flatten()
    tokens = torch.arange(len(flat)) // chosen.shape[1]
    return tokens, flat.bincount(minlength=num_experts).tolist()


def shares_in_text_order(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """The tokens are sorted by expert and the weights are not, so that each answer gets the weight
    of another choice. Nothing crashes, and with weights that are nearly alike hardly anything
    shows: one order for both."""
    flat = chosen.flatten()
    by_expert = flat.argsort(stable=True)
    tokens, shares = by_expert // chosen.shape[1], weights.flatten()[:, None]
    ends = flat.bincount(minlength=len(experts)).cumsum(0).tolist()
    result_XD = x_XD.new_zeros(x_XD.shape)
    for expert, start, end in zip(experts, [0, *ends], ends, strict=False):
        token = tokens[start:end]
        if len(token):
            result_XD.index_add_(0, token, shares[start:end] * expert(x_XD[token]))
    return result_XD


def every_expert_runs(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    """Every expert works on every token, most of them times 0. The sum is right, but with 8 of 64 in
    use it is eight times the work: let an expert see its own tokens only."""
    shares_XE = weights.new_zeros(len(x_XD), len(experts)).scatter(1, chosen, weights)
    return torch.einsum("xe,exd->xd", shares_XE, torch.stack([expert(x_XD) for expert in experts]))


def _one_by_one(
    x_XD: Tensor, weights: Tensor, chosen: Tensor, experts: Sequence[nn.Module]
) -> Tensor:
    mixed_XD = torch.zeros_like(x_XD)
    for token, numbers in enumerate(chosen.tolist()):
        for place, number in enumerate(numbers):
            mixed_XD[token] += weights[token, place] * experts[number](x_XD[token][None])[0]
    return mixed_XD


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "teams": (orders_counted, twice_the_same, any_number),
    "mix_slowly": (weights_left_out, weighted_before, place_for_number, only_the_last),
    "sort_choices": (places_for_tokens, remainder_for_tokens, idle_ones_forgotten, not_sorted),
    "mended_mix": (shares_in_text_order, weights_left_out, every_expert_runs),
}
"""The wrong versions of each task."""
