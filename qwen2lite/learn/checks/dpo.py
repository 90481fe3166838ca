"""What three tasks of the exercise 73_dpo ask: the probability of an answer, margins, and the loss."""

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
    require_gradient,
    require_refusal,
    require_tensor,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import dpo as mutants
from qwen2lite.learn.mutants.dpo import MUTANTS
from qwen2lite.train.loss import IGNORED

Part = Callable[..., Any]


def check_said_logp(said_logp: Part) -> Iterator[str]:
    """By hand, against a sum token by token, for nothing and for a long answer."""
    p = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25], [0.1, 0.3, 0.6]])
    by_hand = p.log() + 1, torch.tensor([IGNORED, 0, 2])
    _require_logp(said_logp, *by_hand, "An answer of two tokens, p = 0.5 and 0.6")
    yield f"two tokens of p = 0.5 and 0.6: ln 0.3 = {math.log(0.3):.4f}"
    logits_TV, targets_T = random_normal(6, 7), torch.tensor([IGNORED, 3, 0, 6, IGNORED, 5])
    _require_logp(said_logp, logits_TV, targets_T, "Four of six positions asked")
    yield "a sum over the positions that are asked"
    scores_TV = logits_TV.clone().requires_grad_()
    require_gradient(said_logp(scores_TV, targets_T), {"the logits": scores_TV}, "said_logp")
    yield "the gradient comes through"
    _require_logp(said_logp, logits_TV, torch.full((6,), IGNORED), "No position asked")
    yield "0 where nothing is asked"
    long = random_normal(300, 7, seed=1), torch.arange(300) % 7
    _require_logp(said_logp, *long, "An answer of 300 tokens")
    yield "a long answer too"


def _require_logp(part: Part, logits_TV: Tensor, targets_T: Tensor, what: str) -> None:
    got = call(part, logits_TV, targets_T, name="said_logp")
    reason = usual_reason(MUTANTS["said_logp"], got, logits_TV, targets_T)
    require_tensor(got, [], torch.float32, "said_logp", reason)
    logp_TV = logits_TV.double().log_softmax(-1)
    asked = [(t, token) for t, token in enumerate(targets_T.tolist()) if token != IGNORED]
    want = sum(float(logp_TV[place]) for place in asked)
    if not abs(got.item() - want) <= 1e-4 * max(1.0, abs(want)):
        raise Mistake(f"{what}: ln p is {want:.4f}, and yours is {got.item():.4f}.", reason)


def check_margins(margins: Part) -> Iterator[str]:
    """By hand, at the beginning, for one pair and for several."""
    logp, reference = [[-2.0, -1.0], [-6.0, -1.0]], [[-1.0, -1.0], [-2.0, -2.0]]
    _require_margins(margins, torch.tensor(logp), torch.tensor(reference))
    yield "two pairs, one won and one lost: [3, -1]"
    start = -random_normal(2, 3).abs()
    _require_margins(margins, start, start.clone())
    yield "0 where the policy is still the reference"
    for count in (1, 5):
        both = (-9 * random_normal(2, count, seed=seed).abs() for seed in (1, 2))
        _require_margins(margins, *both)
    yield "one number a pair"
    policy = start.clone().requires_grad_()
    require_gradient(margins(policy, start), {"the policy": policy}, "margins")
    yield "the gradient comes through"


def _require_margins(part: Part, logp: Tensor, reference: Tensor) -> None:
    got = call(part, logp, reference, name="margins")
    reason = usual_reason(MUTANTS["margins"], got, logp, reference)
    require_tensor(got, [logp.shape[1]], torch.float32, "margins", reason)
    pairs = zip(*logp.tolist(), *reference.tolist(), strict=True)
    want = torch.tensor([(now - before) - (bad - was) for now, bad, before, was in pairs])
    if not torch.allclose(got.detach(), want, rtol=1e-5, atol=1e-5):
        raise Mistake(
            f"With chosen {numbers(logp[0])} (reference {numbers(reference[0])}) and rejected "
            f"{numbers(logp[1])} (reference {numbers(reference[1])}) the margins are "
            f"{numbers(want)}, and yours are {numbers(got)}.",
            reason,
        )


def check_dpo_loss(dpo_loss: Part) -> Iterator[str]:
    """By hand, over several pairs, for margins of any size, its slope, and what is refused."""
    _require_loss(dpo_loss, [math.log(4)], 0.5)
    yield "a margin of ln 4 and β = 0.5: ln 1.5 = 0.4055"
    _require_loss(dpo_loss, [0.0], 0.1)
    yield "a margin of 0: ln 2 = 0.6931"
    _require_loss(dpo_loss, [2.0, -1.0, 0.5], 0.3)
    yield "the mean over pairs"
    _require_loss(dpo_loss, [1000.0], 1.0)
    _require_loss(dpo_loss, [-1000.0], 1.0)
    _require_loss(dpo_loss, [-1000.0, 1000.0], 0.5)
    yield "margins of 1000 and of -1000 nats"
    _require_slope(dpo_loss)
    yield "the gradient comes through, and is a number for each of them"
    for beta in (0.0, -0.1):
        reason = told_by(mutants.any_beta)
        accepted = torch.tensor([1.0]), beta
        require_refusal(dpo_loss, accepted, f"For β = {beta:g}", reason, _told)
    yield "a beta that isn't above 0 is refused"
    reason = told_by(mutants.no_pair_accepted)
    require_refusal(dpo_loss, (torch.empty(0), 0.1), "For no pair", reason, _told)
    yield "no pair is refused"


def _require_loss(part: Part, values: list[float], beta: float) -> None:
    margin = torch.tensor(values)
    got = call(part, margin, beta, name="dpo_loss")
    reason = usual_reason(MUTANTS["dpo_loss"], got, margin, beta)
    require_tensor(got, [], torch.float32, "dpo_loss", reason)
    want = sum(map(_softplus, (-beta * value for value in values))) / len(values)
    if not abs(got.item() - want) <= 1e-4 * max(1.0, want):
        raise Mistake(
            f"With margins of {numbers(margin)} and β = {beta:g} the loss is {want:.4f}, and yours is "
            f"{got.item():.4f}.",
            reason,
        )


def _softplus(x: float) -> float:
    """ln(1 + e^x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _require_slope(part: Part) -> None:
    margin, want = torch.tensor([-1000.0, 0.0, 1.0, 1000.0]), [-0.25, -0.125, -0.0672, 0.0]
    margin.requires_grad_()
    loss = part(margin, 1.0)
    if not loss.requires_grad:
        require_gradient(loss, {}, "dpo_loss")
    (slope,) = torch.autograd.grad(loss, margin)
    right = torch.isclose(slope, torch.tensor(want), atol=1e-4).tolist()
    if not all(right):
        corner = told_by(mutants.corner_at_0) if right == [True, False, True, True] else ""
        raise Mistake(
            f"For margins of {numbers(margin)} and β = 1 the gradient is {want}, and yours is "
            f"{numbers(slope)}.",
            told_by(mutants.nan_on_the_way_back) if slope.isnan().any() else corner,
        )


def _told(got: Any) -> str:
    """What was returned: a number where it is one."""
    return f"{got.item():.4g}" if isinstance(got, Tensor) and got.numel() == 1 else describe(got)
