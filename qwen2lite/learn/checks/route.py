"""What `route` has to do. Expected values are by hand: probabilities that one can read off."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.route import MUTANTS, no_maximum, weights_detached

Part = Callable[..., Any]

# Probabilities of three experts for two tokens. A number added to all scores of a token is nothing.
_PROBABILITIES = [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]
_OFFSETS = [[5.0], [-2.0]]


def check_route(route: Part) -> Iterator[str]:
    """Two tokens by hand, both ways of norm_topk_prob, bfloat16, random scores, the gradient."""
    logits_XE = torch.tensor(_PROBABILITIES).log() + torch.tensor(_OFFSETS)
    _require_routed(route, (logits_XE, 2, False), [[0, 0.6, 0.3], [0.5, 0, 0.3]])
    yield "the two best of three, with their probabilities among all three"

    _require_routed(route, (logits_XE, 2, True), [[0, 2 / 3, 1 / 3], [0.625, 0, 0.375]])
    yield "with norm_topk_prob the kept weights come to 1"

    close = torch.tensor([[3.0, 2.984375, 0.0, 0.0]]).bfloat16()
    _require_routed(route, (close, 2, False), _kept(close, 2, False))
    yield "float32 weights for bfloat16 scores"

    for number, norm in ((1, False), (3, True), (5, False)):
        logits_XE = 2 * random_normal(7, 5, seed=number)
        _require_routed(route, (logits_XE, number, norm), _kept(logits_XE, number, norm))
    yield "right for one, three and all of five experts"

    loud_XE = logits_XE + 100
    if call(route, loud_XE, 2, False)[0].isnan().any():
        raise Mistake("For scores near 100 the weights are not numbers.", told_by(no_maximum))
    _require_routed(route, (loud_XE, 2, False), _kept(loud_XE, 2, False))
    yield "only differences of the scores count, however large they are"

    leaf = (2 * random_normal(4, 5)).requires_grad_()
    weights, _ = call(route, leaf, 2, False)
    if not weights.requires_grad:
        wrong = "The weights of route have no gradient, so the router could not learn."
        raise Mistake(wrong, told_by(weights_detached))
    require_gradient(weights, {"the router's scores": leaf}, "route")
    yield "the gradient reaches the router's scores"


def _require_routed(route: Part, inputs: tuple[Any, ...], want: list[list[float]]) -> None:
    """Compares the weights as one row of all experts a token: the order of the kept is free."""
    logits_XE, number, norm = inputs
    got = call(route, *inputs)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(
            f"route returned {describe(got)}, and a pair was wanted: weights and expert numbers.",
            "End with `return weights, chosen`.",
        )
    why = _why(got, inputs)
    shape = [len(logits_XE), number]
    require_tensor(got[0], shape, torch.float32, "route, as its first,", why)
    require_tensor(got[1], shape, torch.int64, "route, as its second,", why)
    if got[1].min() < 0 or got[1].max() >= logits_XE.shape[1]:
        raise Mistake(f"route chose an expert that isn't there: {got[1].tolist()}.", why)
    got_XE = _in_rows(got, logits_XE)
    if not same(got_XE, torch.tensor(want).float()):
        token = int((got_XE - torch.tensor(want)).abs().amax(1).argmax())
        raise Mistake(
            f"For the scores {numbers(logits_XE[token])}, the {number} best, with norm_topk_prob "
            f"{norm}, the experts' weights are {numbers(got_XE[token])}, "
            f"and should be {numbers(torch.tensor(want[token]))}.",
            why,
        )


def _in_rows(routed: tuple[torch.Tensor, torch.Tensor], logits_XE: torch.Tensor) -> torch.Tensor:
    """The weights of all experts, 0 for those not chosen, in the dtype of the weights."""
    zeros_XE = torch.zeros(logits_XE.shape, dtype=routed[0].dtype)
    return zeros_XE.scatter_add(1, routed[1], routed[0].detach())


def _why(got: Any, inputs: tuple[Any, ...]) -> str:
    def in_rows(mutant: Part) -> Part:
        def answer(*inputs: Any) -> torch.Tensor:
            return _in_rows(mutant(*inputs), inputs[0])

        answer.__doc__ = mutant.__doc__
        return answer

    try:
        rows = _in_rows(got, inputs[0])
    except (AttributeError, RuntimeError, TypeError):  # not even weights and numbers
        return ""
    return usual_reason(map(in_rows, MUTANTS["route"]), rows, *inputs)


def _kept(logits_XE: torch.Tensor, number: int, norm: bool) -> list[list[float]]:
    """The rule in Python's floats, one token at a time."""
    rows = []
    for scores in logits_XE.tolist():
        powers = [math.exp(score) for score in scores]
        best = sorted(range(len(powers)), key=lambda expert: -powers[expert])[:number]
        total = sum(powers[expert] for expert in best) if norm else sum(powers)
        rows.append([powers[e] / total if e in best else 0.0 for e in range(len(powers))])
    return rows
