"""What four tasks of the exercise 74_ppo ask: rewards of tokens, advantages, and the two losses."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import ppo as mutants
from qwen2lite.learn.mutants import ppo_losses

Part = Callable[..., Any]
_MUTANTS = mutants.MUTANTS | ppo_losses.MUTANTS


def _said(width: int, *spans: tuple[int, int]) -> Tensor:
    """Where tokens stand: from each span's first place up to its last, that one not among them."""
    places = torch.arange(width)
    return torch.stack([(first <= places) & (places < end) for first, end in spans])


def _rows(part: Part, name: str, inputs: tuple[Any, ...], said_BT: Tensor, want: list[Any]) -> None:
    """Raises Mistake at the first row of the answer that isn't as wanted."""
    got_BT = call(part, *inputs, name=name)
    reason = usual_reason(_MUTANTS[name], got_BT, *inputs)
    require_tensor(got_BT, said_BT.shape, torch.float32, name, reason)
    for row, (got, row_wanted) in enumerate(zip(got_BT, map(torch.tensor, want), strict=True)):
        if not torch.allclose(got, row_wanted, rtol=1e-5, atol=1e-5):
            places = said_BT[row].nonzero()[:, 0]
            raise Mistake(
                f"Row {row} has its tokens at places {places[0]} to {places[-1]}: "
                f"{numbers(row_wanted)} was wanted, and yours is {numbers(got)}.",
                reason,
            )


def check_token_rewards(token_rewards: Part) -> Iterator[str]:
    """By hand, a score below 0 and a single token, full rows, no price, any padding."""
    gain = torch.tensor([[9.0, 1.0, -0.5, 2.0, 9.0], [0.5, -1.0, 9.0, 9.0, 9.0]])
    by_hand = torch.tensor([3.0, -1.0]), gain, _said(5, (1, 4), (0, 2)), 0.1
    _require_rewards(token_rewards, *by_hand)
    yield "by hand: [0, -0.1, 0.05, 2.8, 0], and a second row of two tokens with the score -1"
    said = _said(7, (0, 7), (6, 7), (2, 3), (3, 6))
    _require_rewards(token_rewards, random_normal(4), random_normal(4, 7, seed=1), said, 0.04)
    yield "rows that are full, a single token, the last place"
    _require_rewards(
        token_rewards, random_normal(2), random_normal(2, 3), _said(3, (0, 2), (1, 3)), 0
    )
    yield "with kl = 0 only the score"
    _require_rewards(token_rewards, torch.tensor([0.5]), random_normal(1, 4), _said(4, (1, 3)), 2.0)
    yield "one answer alone"


def _require_rewards(
    part: Part, score_B: Tensor, gain_BT: Tensor, said_BT: Tensor, kl: float
) -> None:
    want = []
    for score, gains, said in zip(
        score_B.tolist(), gain_BT.tolist(), said_BT.tolist(), strict=True
    ):
        row = [-kl * gain if there else 0.0 for gain, there in zip(gains, said, strict=True)]
        row[max(place for place, there in enumerate(said) if there)] += score
        want.append(row)
    _rows(part, "token_rewards", (score_B, gain_BT, said_BT, kl), said_BT, want)


def check_advantages(advantages: Part) -> Iterator[str]:
    """By hand, both ends of λ, rows of unlike length, what stands around the answers, the gradient."""
    rewards, values = [[0.0, 0.0, 0.0, 1.0, 0.0]], [[7.0, 0.5, 0.25, 0.75, 7.0]]
    by_hand = torch.tensor(rewards), torch.tensor(values), _said(5, (1, 4))
    _require_advantages(advantages, *by_hand, 0.5)
    yield "by hand with λ = 0.5: [0, 0.0625, 0.625, 0.25, 0]"
    _require_advantages(advantages, *by_hand, 1.0)
    yield "λ = 1: what is earned from here on, less V"
    _require_advantages(advantages, *by_hand, 0.0)
    yield "λ = 0: each surprise by itself"
    said = _said(8, (0, 8), (2, 5), (7, 8), (1, 7), (0, 1))
    some = random_normal(5, 8) * said, random_normal(5, 8, seed=1), said
    _require_advantages(advantages, *some, 0.95)
    yield "answers of 8, 3, 1, 6 and 1 tokens; values of prompts and padding don't matter"
    given = by_hand[1].clone().requires_grad_()
    if advantages(by_hand[0], given, by_hand[2], 0.5).requires_grad:
        raise Mistake(
            "What advantages returned has a gradient, through the values.",
            told_by(mutants.attached),
        )
    yield "no gradient leads to the values"


def _require_advantages(
    part: Part, rewards_BT: Tensor, values_BT: Tensor, said_BT: Tensor, decay: float
) -> None:
    rows = zip(rewards_BT.tolist(), values_BT.tolist(), said_BT.tolist(), strict=True)
    want = [_advantages(rewards, values, said, decay) for rewards, values, said in rows]
    _rows(part, "advantages", (rewards_BT, values_BT, said_BT, decay), said_BT, want)


def _advantages(rewards: list[float], values: list[float], said: list[bool], decay: float) -> Any:
    """As a sum over all surprises that follow, each by itself."""
    places = [place for place, there in enumerate(said) if there]
    ahead = [values[place] for place in places[1:]] + [0.0]
    surprises = [rewards[p] + v - values[p] for p, v in zip(places, ahead, strict=True)]
    row = [0.0] * len(said)
    for first, place in enumerate(places):
        row[place] = sum(decay**n * surprise for n, surprise in enumerate(surprises[first:]))
    return row


def check_policy_loss(policy_loss: Part) -> Iterator[str]:
    """By hand, the four ways to go, at the beginning, many tokens, and which get a gradient."""
    by_hand = [0.3, 0.25, 0.1], [0.2, 0.5, 0.2], [2.0, -1.0, 1.0]
    _require_policy(policy_loss, *by_hand, 0.2)
    yield "by hand: ratios 1.5, 0.5 and 0.5, advantages 2, -1 and 1: -0.7"
    _require_policy(policy_loss, [0.1, 0.75], [0.2, 0.5], [2.0, -1.0], 0.2)
    yield "what went the wrong way isn't clipped: 0.25"
    _require_policy(policy_loss, [0.2, 0.5, 0.9], [0.2, 0.5, 0.9], [2.0, -1.0, 0.5], 0.2)
    yield "ratios of 1: minus the mean of the advantages"
    now, before = (random_normal(9, seed=seed).sigmoid().tolist() for seed in (1, 2))
    _require_policy(policy_loss, now, before, random_normal(9, seed=3).tolist(), 0.1)
    yield "nine tokens, clip 0.1"
    yield "no gradient where a token has gone the right way by more than clip, else -ρA / tokens"


def _require_policy(
    part: Part, now: list[float], was: list[float], advantage: list[float], clip: float
) -> None:
    """`now` and `was` are probabilities."""
    logp, before, ahead = torch.tensor(now).log(), torch.tensor(was).log(), torch.tensor(advantage)
    want, slopes = 0.0, []
    for p, q, a in zip(now, was, advantage, strict=True):
        free, clipped = p / q * a, min(max(p / q, 1 - clip), 1 + clip) * a
        want -= min(free, clipped) / len(now)
        slopes.append(-free / len(now) if free <= clipped else 0.0)
    given = (
        f"With ratios {numbers(torch.tensor(now) / torch.tensor(was))}, advantages {numbers(ahead)}"
    )
    _require_loss(part, "policy_loss", (logp, before, ahead, clip), want, slopes, given)


def _require_loss(
    part: Part, name: str, inputs: tuple[Any, ...], want: float, slopes: list[float], given: str
) -> None:
    """Raises Mistake unless the loss and its gradient by the first input are as wanted."""
    got = call(part, *inputs, name=name)
    reason = usual_reason(_MUTANTS[name], got, *inputs)
    require_tensor(got, [], torch.float32, name, reason)
    if not math.isclose(got.item(), want, rel_tol=1e-5, abs_tol=1e-5):
        raise Mistake(
            f"{given} and clip {inputs[-1]:g} the loss is {want:.4f}, and yours is {got.item():.4f}.",
            reason,
        )
    moved = inputs[0].clone().requires_grad_()
    loss = part(moved, *inputs[1:])
    if not loss.requires_grad:
        require_gradient(loss, {}, name)
    (slope,) = torch.autograd.grad(loss, moved)
    if not torch.allclose(slope, torch.tensor(slopes), rtol=1e-4, atol=1e-5):
        raise Mistake(
            f"{given} and clip {inputs[-1]:g} the gradient is {numbers(torch.tensor(slopes))}, and "
            f"yours is {numbers(slope)}."
        )


def check_value_loss(value_loss: Part) -> Iterator[str]:
    """By hand, on both sides of the return, at the beginning, many tokens, which get a gradient."""
    _require_value(value_loss, [0.9, -0.4, 0.4], [0.5, 0.0, 0.5], [1.0] * 3, 0.15)
    yield "by hand: moved by 0.4 towards a return of 1, by 0.4 away, by 0.1 away: 2.4425 / 6"
    _require_value(value_loss, [0.5, -0.2, 2.0], [1.5, -0.1, 1.9], [0.0, 1.0, 2.0], 0.15)
    yield "from above, by less than clip, and just right"
    _require_value(value_loss, [0.0, 0.0], [0.0, 0.0], [0.75, -2.0], 0.15)
    yield "at first: half the squared error"
    values, before, returns = (random_normal(9, seed=seed).tolist() for seed in (1, 2, 3))
    _require_value(value_loss, values, before, returns, 0.5)
    yield "nine tokens, clip 0.5"
    yield "no gradient where a value has come nearer by more than clip, else (V - return) / tokens"


def _require_value(
    part: Part, values: list[float], before: list[float], returns: list[float], clip: float
) -> None:
    want, slopes = 0.0, []
    for v, b, r in zip(values, before, returns, strict=True):
        free, near = (v - r) ** 2, (b + min(max(v - b, -clip), clip) - r) ** 2
        want += 0.5 * max(free, near) / len(values)
        slopes.append((v - r) / len(values) if free >= near else 0.0)
    inputs = tuple(torch.tensor(x) for x in (values, before, returns))
    given = "With values {}, before {}, returns {}".format(*map(numbers, inputs))
    _require_loss(part, "value_loss", (*inputs, clip), want, slopes, given)
