"""What the exercise 61_routing asks beside `route`: teams, a slow mixture, a sort, a mended one.

By hand an expert is a number times the square of its input: not linear, as no expert is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_number,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.routing_tasks import MUTANTS, every_expert_runs

Part = Callable[..., Any]


def check_teams(teams: Part) -> Iterator[str]:
    """Few enough to write down first, then Qwen2's."""
    for experts, chosen in ((5, 2), (5, 1), (8, 2), (64, 8)):
        got, want = call(teams, experts, chosen), math.comb(experts, chosen)
        require_number(got, "teams", whole=True)
        if got != want:
            raise Mistake(
                f"teams({experts}, {chosen}) is {got:,}, and there are {want:,}.",
                usual_reason(MUTANTS["teams"], got, experts, chosen),
            )
        yield f"{chosen} of {experts} experts: {want:,}"


class Squared(nn.Module):
    """An expert for doing sums by hand: its number times x². It counts the tokens it is given."""

    def __init__(self, number: float):
        super().__init__()
        self.number, self.seen = number, 0

    def forward(self, x_XD: Tensor) -> Tensor:
        """Returns number · x²."""
        self.seen += len(x_XD)
        return self.number * x_XD * x_XD


def check_mix_slowly(mix_slowly: Part) -> Iterator[str]:
    """Two tokens by hand, all tokens on the same experts, random ones."""
    yield from _check_mix("mix_slowly", mix_slowly)


def check_mended_mix(mended_mix: Part) -> Iterator[str]:
    """The same sums, and no expert may see more than its own tokens."""
    yield from _check_mix("mended_mix", mended_mix)
    experts, inputs = _squares(5), _drawn(9, 5, 2)
    call(mended_mix, *inputs, experts, name="mended_mix")
    seen = sum(expert.seen for expert in experts)
    if seen > 18:
        raise Mistake(
            f"Nine tokens with two experts each are 18 choices, and the experts worked through {seen} "
            "tokens.",
            told_by(every_expert_runs),
        )
    yield "an expert sees no tokens but its own"


def _check_mix(name: str, mix: Part) -> Iterator[str]:
    x_XD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    inputs = (x_XD, torch.tensor([[0.5, 0.25], [0.5, 0.125]]), torch.tensor([[2, 0], [1, 2]]))
    what = "Experts that give 1, 10 and 100 times x², the token [1, 2] or [3, 4]"
    _require_mixed(name, mix, inputs, torch.tensor([[50.25, 201.0], [157.5, 280.0]]), what)
    yield "by hand: 0.5 · 100 · 1 + 0.25 · 1 · 1 = 50.25"

    crowd = (torch.ones(6, 2), torch.full((6, 2), 0.5), torch.tensor([[0, 2]] * 6))
    what = "Six tokens [1, 1], which all choose the first and the last of these experts"
    _require_mixed(name, mix, crowd, torch.full((6, 2), 50.5), what)
    yield "no token is dropped, however many choose the same expert"

    inputs = _drawn(9, 5, 2)
    x_XD, weights, chosen = inputs
    shares = weights[..., None] * (10.0 ** chosen.float())[..., None]
    _require_mixed(name, mix, inputs, (shares * x_XD[:, None] ** 2).sum(1), "Nine random tokens")
    yield "right for nine tokens and five experts"


def _squares(count: int) -> list[Squared]:
    return [Squared(10.0**number) for number in range(count)]


def _drawn(tokens: int, experts: int, chosen: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_XD, weights and choices; the last expert is idle."""
    scores_XE = random_normal(tokens, experts, seed=5)
    scores_XE[:, -1] = -9
    weights, numbers = scores_XE.softmax(-1).topk(chosen)
    return random_normal(tokens, 3, seed=6), weights, numbers


def _require_mixed(
    name: str, mix: Part, inputs: tuple[Tensor, Tensor, Tensor], want: Tensor, what: str
) -> None:
    """Raises Mistake unless the mixture is as wanted; it shows the worst token."""
    experts = _squares(max(3, int(inputs[2].max()) + 2))
    got = call(mix, *inputs, experts, name=name)
    require_tensor(got, want.shape, torch.float32, name)
    if not same(got, want, 1e-4):
        worst = int((got - want).abs().amax(-1).nan_to_num(torch.inf).argmax())
        known = usual_reason(MUTANTS[name], got, *inputs, experts)
        raise Mistake(f"{what}: wanted {numbers(want[worst])}, got {numbers(got[worst])}.", known)


def check_sort_choices(sort_choices: Part) -> Iterator[str]:
    """Three tokens by hand, an idle expert, random choices. The order within an expert is free."""
    by_hand = torch.tensor([[2, 0], [1, 2], [0, 2]])
    _require_sorted(sort_choices, by_hand, 3)
    yield "by hand: tokens 0, 2 | 1 | 0, 1, 2, and the counts 2, 1, 3"

    _require_sorted(sort_choices, torch.tensor([[4, 1], [1, 4], [3, 1]]), 6)
    yield "an expert that nobody chose has the count 0"

    for chosen in (1, 3):
        _require_sorted(sort_choices, random_normal(8, 7, seed=chosen).topk(chosen).indices, 7)
    yield "right for one and for three of seven experts"


def _require_sorted(sort_choices: Part, chosen: Tensor, experts: int) -> None:
    got = call(sort_choices, chosen, experts)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(
            f"sort_choices returned {describe(got)}, and a pair was wanted: tokens and counts.",
            "End with `return tokens, counts`.",
        )
    tokens, counts = _as_list(got[0]), _as_list(got[1])
    rows = [set(row) for row in chosen.tolist()]
    want = [[token for token, row in enumerate(rows) if e in row] for e in range(experts)]
    known = (
        told_by(mutant)
        for mutant in MUTANTS["sort_choices"]
        if [_as_list(part) for part in mutant(chosen, experts)] == [tokens, counts]
    )
    if counts != list(map(len, want)):
        raise Mistake(
            f"The choices {chosen.tolist()} of {experts} experts give the counts "
            f"{list(map(len, want))}, and yours are {counts}.",
            next(known, ""),
        )
    ends = [sum(counts[: e + 1]) for e in range(experts)]
    pieces = [sorted(tokens[end - n : end]) for end, n in zip(ends, counts, strict=True)]
    if pieces != want or len(tokens) != ends[-1]:
        raise Mistake(
            f"The choices {chosen.tolist()} give, one stretch an expert, the tokens {want}, and in "
            f"yours these stretches are {pieces}.",
            next(known, ""),
        )


def _as_list(part: Any) -> list[int]:
    """Whole numbers, from a tensor or from any row of them."""
    values = part.tolist() if isinstance(part, Tensor) else part
    if not isinstance(values, Sequence) or not all(type(value) is int for value in values):
        raise Mistake(
            f"sort_choices gave {describe(part)}; tokens and counts are rows of whole numbers."
        )
    return list(values)
