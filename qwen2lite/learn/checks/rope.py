"""What the parts of `model/rope.py` have to do.

The expected values are worked out by hand or in Python's own float64, or are properties of a turn;
none comes from the package's functions.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    meta_device,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.rope import MUTANTS

Part = Callable[..., Any]


def check_rotary_frequencies(rotary_frequencies: Part) -> Iterator[str]:
    """Values by hand, every head size and base, float32, on the CPU whatever the default device."""
    mutants = MUTANTS["rotary_frequencies"]
    got = call(rotary_frequencies, 8, 10_000.0)
    reason = "There is one frequency a *pair* of numbers: H/2 of them, as with arange(0, H, 2)."
    require_tensor(got, [4], torch.float32, "rotary_frequencies(8, 10000.0)", reason)
    yield "one float32 frequency for each pair of a head"

    _require_numbers(
        got, [1.0, 0.1, 0.01, 0.001], "rotary_frequencies(8, 10000.0)", mutants, 8, 1e4
    )
    yield "rotary_frequencies(8, 10000.0) is [1, 0.1, 0.01, 0.001]"

    for head_dim, theta in ((6, 1_000_000.0), (64, 1_000_000.0), (10, 500.0)):
        got = call(rotary_frequencies, head_dim, theta)
        want = torch.tensor([theta ** (-2 * i / head_dim) for i in range(head_dim // 2)])
        what = f"rotary_frequencies({head_dim}, {theta})"
        require_tensor(got, want.shape, torch.float32, what, reason)
        _require_close_ratio(got, want, what, usual_reason(mutants, got, head_dim, theta))
    yield "right for other head sizes and bases, to float32's precision"

    with meta_device():
        got = call(rotary_frequencies, 8, 10_000.0)
        if got.device.type != "cpu":
            raise Mistake(
                f"Under torch.device('meta') the frequencies are on {got.device}, not on the CPU.",
                usual_reason(mutants, got, 8, 10_000.0),
            )
    yield "on the CPU while the model is being built"

    try:
        rotary_frequencies(7, 10_000.0)
    except ValueError:
        yield "an odd head size is refused"
    else:
        raise Mistake(
            "rotary_frequencies(7, 10000.0) answers, and should raise a ValueError.",
            "RoPE turns pairs, and 7 numbers leave one alone. Say so before computing anything.",
        )


def check_rotary_tables(rotary_tables: Part) -> Iterator[str]:
    """Shapes, a quarter turn by hand, the positions given and no others, precision far away."""
    positions_T = torch.tensor([0, 1, 2, 5, 7])
    frequencies_R = torch.tensor([math.pi / 2, math.pi / 3, 0.1])
    mutants = MUTANTS["rotary_tables"]
    got = call(rotary_tables, positions_T, frequencies_R)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(
            f"rotary_tables returned a {type(got).__name__}, and the pair (cos, sin) was wanted.",
            "End with `return cos_TH, sin_TH`.",
        )
    reason = (
        "Three frequencies make a head of six: every angle is needed twice, once for each half. "
        "Put the angles beside themselves with torch.cat."
    )
    for table, name in zip(got, ("the cosine table", "the sine table"), strict=True):
        require_tensor(table, [5, 6], torch.float32, name, reason)
    yield "two float32 tables, a row a position, as wide as a head"

    why = usual_reason(mutants, got, positions_T, frequencies_R)
    _require_row(got[0][0], [1.0] * 6, "the cosine at position 0", why)
    _require_row(got[1][0], [0.0] * 6, "the sine at position 0", why)
    cos_R, sin_R = [0.0, 0.5, math.cos(0.1)], [1.0, math.sqrt(3) / 2, math.sin(0.1)]
    given = "at position 1 with the frequencies [π/2, π/3, 0.1]"
    _require_row(got[0][1], cos_R + cos_R, f"the cosine {given}", why)
    _require_row(got[1][1], sin_R + sin_R, f"the sine {given}", why)
    yield "a quarter turn and a sixth of a turn come out as by hand"

    _require_far_positions(rotary_tables)
    yield "positions 257, 2049 and 32767 keep their own angles"


def _require_far_positions(rotary_tables: Part) -> None:
    # Multiples of 1/8 times these positions are exact in float32, so only a rounding can be seen.
    far_T, exact_R = torch.tensor([255, 257, 2049, 32_767]), torch.tensor([1.0, 0.5, 0.125])
    got = call(rotary_tables, far_T, exact_R)
    why = usual_reason(MUTANTS["rotary_tables"], got, far_T, exact_R)
    for row, position in enumerate(far_T.tolist()):
        angles = [position * f for f in (1.0, 0.5, 0.125)] * 2
        _require_row(got[0][row], [math.cos(a) for a in angles], f"cosine at {position}", why)
        _require_row(got[1][row], [math.sin(a) for a in angles], f"sine at {position}", why)


def check_apply_rope(apply_rope: Part) -> Iterator[str]:
    """A turn by hand, then what every turn keeps, on the tensors that the model passes."""
    mutants = MUTANTS["apply_rope"]
    x_BNTH, cos_TH, sin_TH = _heads(), *tables(torch.arange(5), 8)
    got = call(apply_rope, x_BNTH, cos_TH, sin_TH)
    require_tensor(got, x_BNTH.shape, torch.float32, "apply_rope")
    why = usual_reason(mutants, got, x_BNTH, cos_TH, sin_TH)
    yield "same shape and dtype as its input"

    _by_hand(apply_rope, why)
    yield "a quarter turn of the first pair makes [1, 2, 3, 4] into [-3, 2, 1, 4]"

    still = call(apply_rope, x_BNTH, torch.ones(5, 8), torch.zeros(5, 8))
    if not same(still, x_BNTH):
        raise Mistake("An angle of zero (cos 1, sin 0) changes the vector.", why)
    lengths, wanted = _pair_lengths(got), _pair_lengths(x_BNTH)
    if not same(lengths, wanted):
        raise Mistake("A pair (i, i + H/2) changes its length, and a turn never does.", why)
    yield "an angle of zero changes nothing, and no turn changes a length"

    _only_distance_counts(apply_rope, why)
    yield "the product of a query and a key depends on their distance only"

    want = turned_as_complex_numbers(x_BNTH, torch.arange(5))
    if not same(got, want):
        raise Mistake("Some pair turns by another angle than its row of the tables says.", why)
    for heads, tokens, size in ((2, 1, 6), (1, 4, 10)):
        small = random_normal(1, heads, tokens, size)
        got_small = call(apply_rope, small, *tables(torch.arange(tokens), size))
        what = f"apply_rope of float32 {list(small.shape)}"
        require_tensor(got_small, small.shape, torch.float32, what)
    yield "any number of heads, one token, other head sizes"

    rough = x_BNTH.bfloat16()
    got = call(apply_rope, rough, cos_TH, sin_TH)
    why = usual_reason(mutants, got, rough, cos_TH, sin_TH)
    require_tensor(got, x_BNTH.shape, torch.bfloat16, "apply_rope of a bfloat16 tensor", why)
    if not same(got.float(), want, tolerance=0.05):
        raise Mistake("In bfloat16 the result is far from the one in float32.", why)
    leaf = _heads().requires_grad_()
    require_gradient(call(apply_rope, leaf, cos_TH, sin_TH), {"its input": leaf}, "apply_rope")
    yield "bfloat16 stays bfloat16, and gradients pass"


def _require_numbers(
    got: torch.Tensor, want: list[float], what: str, mutants: Any, *inputs: Any
) -> None:
    if not same(got, torch.tensor(want)):
        raise Mistake(
            f"{what} is {numbers(got)}, and should be {numbers(torch.tensor(want))}.",
            usual_reason(mutants, got, *inputs),
        )


def _require_close_ratio(got: torch.Tensor, want: torch.Tensor, what: str, why: str) -> None:
    off_R = ((got / want).double() - 1).abs()
    worst = int(off_R.argmax())
    if not off_R[worst] < 1e-5:
        pair = f"the frequency of pair {worst} is {got[worst]:.7g}, and should be {want[worst]:.7g}"
        raise Mistake(f"{what}: {pair}.", why)


def _require_row(got: torch.Tensor, want: list[float], what: str, why: str) -> None:
    if not same(got, torch.tensor(want)):
        raise Mistake(
            f"{what} is {numbers(got)}, and should be {numbers(torch.tensor(want))}.", why
        )


def _heads() -> torch.Tensor:
    """x_BNTH, sizes 2, 3, 5, 8, laid out in memory as the model does: heads were moved forward."""
    return random_normal(2, 5, 3, 8).transpose(1, 2)


def _angles(positions_T: torch.Tensor, size: int) -> torch.Tensor:
    frequencies_R = 0.9 / torch.arange(1, size // 2 + 1) ** 1.5
    return positions_T[:, None] * frequencies_R


def tables(positions_T: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos_TH and sin_TH for the two halves, of angles that no two pairs share."""
    angles_TR = _angles(positions_T, size)
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def turned_as_complex_numbers(x_BNTH: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
    """Turns halves by the angles of `tables`, another way: a pair is a complex number."""
    first_BNTR, second_BNTR = x_BNTH.double().chunk(2, dim=-1)
    angles_TR = _angles(positions_T, x_BNTH.shape[-1]).double()
    turned = torch.complex(first_BNTR, second_BNTR) * torch.polar(
        torch.ones_like(angles_TR), angles_TR
    )
    return torch.cat((turned.real, turned.imag), dim=-1).float()


def _by_hand(apply_rope: Part, why: str) -> None:
    x_BNTH = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    cos_TH, sin_TH = torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    got = call(apply_rope, x_BNTH, cos_TH, sin_TH)
    require_tensor(got, x_BNTH.shape, torch.float32, "apply_rope of a single vector")
    if not same(got.flatten(), torch.tensor([-3.0, 2.0, 1.0, 4.0])):
        raise Mistake(
            "A quarter turn of the first pair (1, 3), and none of the second, makes [1, 2, 3, 4] "
            f"into [-3, 2, 1, 4]; apply_rope made it {numbers(got)}.",
            why,
        )


def _pair_lengths(x_BNTH: torch.Tensor) -> torch.Tensor:
    first_BNTR, second_BNTR = x_BNTH.detach().chunk(2, dim=-1)
    return torch.hypot(first_BNTR, second_BNTR)


def _only_distance_counts(apply_rope: Part, why: str) -> None:
    query, key = random_normal(1, 1, 1, 8, seed=1), random_normal(1, 1, 1, 8, seed=2)
    scores = []
    for query_position, key_position in ((5, 3), (9, 7), (42, 40)):
        turned_query = call(apply_rope, query, *tables(torch.tensor([query_position]), 8))
        turned_key = call(apply_rope, key, *tables(torch.tensor([key_position]), 8))
        scores.append((turned_query * turned_key).sum().item())
    if max(scores) - min(scores) > 1e-4:
        raise Mistake(
            "A key two places before its query scores differently at 5, 9 and 42: "
            f"{', '.join(f'{s:.3f}' for s in scores)}.",
            why,
        )
