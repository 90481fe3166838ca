"""What the tasks of the exercise 72_reward ask: rewards compared, learnt from, read and counted."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.sft import is_ids, outlined
from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    one_number,
    random_normal,
    require_gradient,
    require_refusal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import reward as mutants
from qwen2lite.learn.mutants.reward import MUTANTS

Part = Callable[..., Any]


def check_preferred(preferred: Part) -> Iterator[str]:
    """By hand, equal rewards, shifted ones, and such whose powers are too large or too small."""
    three = math.log(3)
    powers, power = map(told_by, (mutants.powers_of_rewards, mutants.power_of_difference))
    for first, second, want, what, usual in (
        (2 + three, 2.0, 0.75, "three times as likely as the other", ""),
        (-three, 0.0, 0.25, "the other way round", ""),
        (-2.0, -2.0, 0.5, "equal rewards", ""),
        (1000.0, 999.0, 1 / (1 + math.exp(-1)), "large rewards, a small difference", powers),
        (-1000.0, 1000.0, 0.0, "a very wrong difference", power),
        (1000.0, -1000.0, 1.0, "a very right one", power),
    ):
        got = _probability(preferred, first, second, usual)
        if not abs(got - want) < 1e-5:
            raise Mistake(
                f"With rewards of {first:.5g} and {second:.5g} the first is preferred with the "
                f"probability {want:.4g}, and yours is {got:.4g}.",
                usual if math.isnan(got) else _known("preferred", got, first, second),
            )
        yield f"{what}: {want:.4g}"


def _probability(part: Part, first: float, second: float, usual: str) -> float:
    try:
        return one_number(call(part, first, second, name="preferred"), "preferred")
    except Mistake as mistake:
        if isinstance(mistake.__cause__, OverflowError):
            raise Mistake(mistake.wrong, usual) from mistake.__cause__
        raise


def _known(task: str, got: float, *inputs: Any) -> str:
    """The reason of the known mistake that gives this number."""
    for mutant in MUTANTS[task]:
        try:
            wrong = mutant(*inputs)
        except ArithmeticError:  # this one overflows here, and so it isn't this mistake
            continue
        if math.isclose(wrong, got, rel_tol=1e-5, abs_tol=1e-9):
            return told_by(mutant)
    return ""


def check_pairwise_loss(pairwise_loss: Part) -> Iterator[str]:
    """By hand, pair by pair, large differences and their gradient, bfloat16, no pair, shapes."""
    by_hand = torch.tensor([math.log(3), 1.0]), torch.tensor([0.0, 1.0])
    _require_loss(pairwise_loss, *by_hand, "Pairs with σ = 3/4 and 1/2")
    yield "pairs that are right with probability 3/4 and 1/2: (ln 4/3 + ln 2) / 2 = 0.4904"
    some = random_normal(5), random_normal(5, seed=1)
    _require_loss(pairwise_loss, *some, "Five pairs")
    yield "the mean over five pairs, each compared within itself"
    chosen_B, rejected_B = (side.clone().requires_grad_() for side in some)
    sides = {"the chosen rewards": chosen_B, "the rejected rewards": rejected_B}
    require_gradient(pairwise_loss(chosen_B, rejected_B), sides, "pairwise_loss")
    yield "the gradient comes through"
    large = torch.tensor([-500.0, 500.0, 3.0]), torch.tensor([500.0, -500.0, 3.5])
    _require_loss(pairwise_loss, *large, "Differences of -1000, 1000 and -0.5")
    yield "a number for differences of ±1000"
    _require_gradient(pairwise_loss, *large)
    yield "a gradient too: what the probability lacks of 1, divided by the number of pairs"
    narrow = torch.tensor([1.0, 2.0, 0.5]).bfloat16(), torch.tensor([0.25, 0.5, 1.0]).bfloat16()
    _require_loss(pairwise_loss, *narrow, "Rewards in bfloat16", told_by(mutants.in_16_bits))
    yield "in float32, also where the rewards are bfloat16"
    _require_loss(pairwise_loss, torch.empty(0), torch.empty(0), "No pair")
    yield "0 for no pair"
    for shapes in ((3, 1), (1, 2), (2, 3)):
        given = f"For {shapes[0]} chosen and {shapes[1]} rejected rewards"
        require_refusal(pairwise_loss, map(torch.zeros, shapes), given, told_by(mutants.any_shapes))
    yield "not as many of one as of the other are refused"


def _require_loss(
    part: Part, chosen_B: Tensor, rejected_B: Tensor, what: str, usual: str = ""
) -> None:
    got = call(part, chosen_B, rejected_B, name="pairwise_loss")
    reason = usual_reason(MUTANTS["pairwise_loss"], got, chosen_B, rejected_B) or usual
    require_tensor(got, [], torch.float32, "pairwise_loss", reason)
    differences = (chosen_B.double() - rejected_B.double()).tolist()
    want = sum(map(_surprise, differences)) / max(len(differences), 1)
    if not abs(got.item() - want) <= 1e-4 * max(1.0, want):
        wrong = f"{what}: the loss is {want:.4f}, and yours is {got.item():.4f}."
        raise Mistake(wrong, reason)


def _surprise(difference: float) -> float:
    """-ln σ."""
    return max(0.0, -difference) + math.log1p(math.exp(-abs(difference)))


def _require_gradient(part: Part, chosen_B: Tensor, rejected_B: Tensor) -> None:
    sides = {"the chosen rewards": chosen_B, "the rejected rewards": rejected_B}
    sides = {name: side.clone().requires_grad_() for name, side in sides.items()}
    part(*sides.values()).backward()
    missing_B = (rejected_B - chosen_B).sigmoid() / len(chosen_B)
    for sign, (name, side) in zip((-1, 1), sides.items(), strict=True):
        if side.grad is None or not same(side.grad, sign * missing_B):
            mine = "none" if side.grad is None else numbers(side.grad)
            raise Mistake(
                f"For differences of {numbers(chosen_B - rejected_B)} the gradient of {name} is "
                f"{numbers(sign * missing_B)}, and yours is {mine}."
            )


def check_read_at_end(read_at_end: Part) -> Iterator[str]:
    """By hand, with full rows and a text of one token, one text alone, and the gradient."""
    by_hand = torch.tensor([[1.0, 3.0, -2.0, 9.0], [4.0, 0.5, 7.0, 8.0]]), torch.tensor([3, 2])
    _require_ends(read_at_end, *by_hand)
    yield "by hand: 3 and 2 tokens of rows of 4"
    _require_ends(read_at_end, random_normal(4, 6), torch.tensor([6, 1, 3, 6]))
    yield "texts that fill their row, and one of a single token"
    _require_ends(read_at_end, random_normal(1, 3), torch.tensor([2]))
    yield "one text alone"
    rewards_BT, lengths_B = random_normal(2, 5).requires_grad_(), torch.tensor([4, 5])
    got = read_at_end(rewards_BT, lengths_B)
    require_gradient(got, {"the rewards": rewards_BT}, "read_at_end")
    yield "the gradient comes through"


def _require_ends(part: Part, rewards_BT: Tensor, lengths_B: Tensor) -> None:
    got = call(part, rewards_BT, lengths_B, name="read_at_end")
    reason = usual_reason(MUTANTS["read_at_end"], got, rewards_BT, lengths_B)
    require_tensor(got, [len(lengths_B)], rewards_BT.dtype, "read_at_end", reason)
    rows = zip(rewards_BT.tolist(), lengths_B.tolist(), strict=True)
    want_B = torch.tensor([row[length - 1] for row, length in rows])
    if not same(got, want_B):
        raise Mistake(
            f"For texts of {lengths_B.tolist()} tokens in rows of {rewards_BT.shape[1]} the rewards "
            f"are {numbers(want_B)}, and yours are {numbers(got)}.",
            reason,
        )


def check_share_won(share_won: Part) -> Iterator[str]:
    """By hand with a tie and rewards below 0, all equal, all won by a little."""
    for chosen, rejected, what in (
        ([3.0, -1.0, 0.0, -2.0, 5.0], [1.0, -4.0, 0.0, 2.0, 4.0], "three of five, one is equal"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "all equal, none is won"),
        ([-3.0, -9.0], [-3.5, -9.5], "all won, below 0"),
        ([9.0, 1.0, 2.0, 3.0], [-9.0, 2.0, 3.0, 4.0], "one by much, three lost by little"),
    ):
        sides = torch.tensor(chosen), torch.tensor(rejected)
        got = one_number(call(share_won, *sides), "share_won")
        want = sum(c > r for c, r in zip(chosen, rejected, strict=True)) / len(chosen)
        if not abs(got - want) < 1e-6:
            raise Mistake(
                f"Of rewards {numbers(sides[0])} against {numbers(sides[1])} the share {want:g} is "
                f"won, and yours is {got:g}.",
                _known("share_won", got, *sides),
            )
        yield f"{what}: {want:g}"


def check_mended_best(mended_best: Part) -> Iterator[str]:
    """By hand: a question whose rewards are all larger, three questions, one, one answer each."""
    for rewards, samples, want, what in (
        ([5.0, 7.0, 6.0, 2.0, -1.0, -3.0], 3, [1, 3], "two questions, three answers each"),
        ([0.5, 0.0, 1.5, 3.0, -4.0, -2.0], 2, [0, 3, 5], "three questions, two answers each"),
        ([-1.0, -3.0, -2.0, -0.5], 4, [3], "one question, four answers"),
        ([2.0, 1.0, 3.0], 1, [0, 1, 2], "nothing to choose"),
    ):
        got = call(mended_best, list(rewards), samples, name="mended_best")
        mine = got.tolist() if isinstance(got, Tensor) else got
        mine = list(mine) if isinstance(mine, tuple) else mine
        reason = usual_reason(MUTANTS["mended_best"], mine, rewards, samples)
        if not is_ids(mine):
            raise Mistake(
                f"mended_best returned {outlined(mine)}; a list of whole numbers was wanted.",
                reason,
            )
        if mine != want:
            raise Mistake(
                f"With rewards of {rewards}, {samples} answers a question, the best are {want}, and "
                f"yours are {mine}.",
                reason,
            )
        yield f"{what}: {want}"
