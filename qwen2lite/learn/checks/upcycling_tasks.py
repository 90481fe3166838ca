"""What the exercise 63_upcycling asks: copies, a cut, a half anew, a shuffle, and a factor.

A column of an MLP is a row of gate_proj, the same row of up_proj and the same column of down_proj.
"""

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
    one_number,
    random_normal,
    require_number,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import upcycling_tasks as mutants
from qwen2lite.learn.mutants.upcycling_tasks import MUTANTS

Part = Callable[..., Any]
Matrices = tuple[Tensor, Tensor, Tensor]


def check_copies_needed(copies_needed: Part) -> Iterator[str]:
    """By hand, exactly full, an expert wider than the MLP, and the 57B."""
    for question, what in (
        ((10, 4, 11), "11 experts of 4 columns are 44, from copies of 10: 5"),
        ((12, 4, 6), "6 experts of 4 columns fill two copies of 12"),
        ((10, 25, 1), "one expert of 25 columns takes 3 copies of 10"),
        ((18944, 2560, 64), "the 57B: 8.65, so 9"),
    ):
        dense_width, width, experts = question
        got, want = call(copies_needed, *question), math.ceil(experts * width / dense_width)
        require_number(got, "copies_needed", whole=True)
        if got != want:
            raise Mistake(
                f"{experts} experts of {width:,} columns need {experts * width:,}, and a copy has "
                f"{dense_width:,}: {want} copies, and yours are {got}.",
                usual_reason(MUTANTS["copies_needed"], got, *question),
            )
        yield what


def check_cut_experts(cut_experts: Part) -> Iterator[str]:
    """Columns by number, so that one sees which went where; then what the experts compute."""
    orders = [torch.tensor(order) for order in ([2, 0, 4, 1, 3], [1, 4, 0, 3, 2])]
    _require_cut(cut_experts, _numbered(5), orders, 3, 3)
    yield "by hand: columns 2, 0, 4 | 1, 3, 1 | 4, 0, 3, and the 2 is left over"

    rng = torch.Generator().manual_seed(0)
    orders = [torch.randperm(8, generator=rng) for _ in range(3)]
    mlp = tuple(random_normal(*shape, seed=n) for n, shape in enumerate([(8, 5), (8, 5), (5, 8)]))
    experts = _require_cut(cut_experts, mlp, orders, 4, 6)
    x_XD = random_normal(6, 5, seed=9)
    total_XD = torch.stack([_computed(expert, x_XD) for expert in experts]).sum(0)
    if not same(total_XD, 3 * _computed(mlp, x_XD), 1e-4):
        raise Mistake("Six experts that use up three copies don't add up to three times the MLP.")
    yield "all experts of three whole copies add up to three times the dense MLP"


def _require_cut(
    cut_experts: Part, mlp: Any, orders: list[Tensor], width: int, count: int
) -> list[Matrices]:
    got = call(cut_experts, *mlp, orders, width, count)
    if not isinstance(got, list | tuple):
        raise Mistake(f"A list of {count} experts was wanted, and you gave {describe(got)}.")
    if len(got) != count:
        raise Mistake(
            f"A list of {count} experts was wanted, and you gave {len(got)} of them.",
            _known("cut_experts", got, lambda m: m(*mlp, orders, width, count)),
        )
    columns = torch.cat(orders)
    for number, expert in enumerate(got):
        _require_matrices(f"Expert {number}", expert, mlp, width)
        mine = columns[number * width : (number + 1) * width]
        want = (mlp[0][mine], mlp[1][mine], mlp[2][:, mine])
        for name, ours, right in zip(_NAMES, expert, want, strict=True):
            if not same(ours, right):
                raise Mistake(
                    f"From the orders {[order.tolist() for order in orders]}, expert {number} has the "
                    f"columns {mine.tolist()}, and its {name} has others.",
                    _known("cut_experts", got, lambda m: m(*mlp, orders, width, count)),
                )
    return list(got)


_NAMES = ("gate_proj", "up_proj", "down_proj")


def _numbered(width: int) -> Matrices:
    """An MLP in which column 3 consists of threes; gate, up and down differ in their hundreds."""
    column = torch.arange(width, dtype=torch.float32)
    gate_FD = column[:, None].expand(width, 2)
    return 100 + gate_FD, 200 + gate_FD, 300 + gate_FD.T


def _computed(mlp: Any, x_XD: Tensor) -> Tensor:
    gate, up = x_XD @ mlp[0].T, x_XD @ mlp[1].T
    return (gate / (1 + (-gate).exp()) * up) @ mlp[2].T


def _require_matrices(what: str, got: Any, like: Any, width: int) -> None:
    if not isinstance(got, list | tuple) or len(got) != 3:
        raise Mistake(f"{what} is {describe(got)}; three matrices were wanted: gate, up and down.")
    size = like[0].shape[1]
    shapes = ([width, size], [width, size], [size, width])
    for name, matrix, shape in zip(_NAMES, got, shapes, strict=True):
        require_tensor(matrix, shape, torch.float32, f"{what}'s {name}: the function")


def _known(task: str, got: Any, asked: Callable[[Part], Any]) -> str:
    """What the known mistake says of itself that gives exactly this answer."""
    for mutant in MUTANTS[task]:
        wrong = asked(mutant)
        if len(wrong) == len(got) and all(map(_alike, wrong, got)):
            return told_by(mutant)
    return ""


def _alike(one: Any, other: Any) -> bool:
    return same(tuple(one), tuple(other)) if not isinstance(one, Tensor) else same(one, other)


def check_half_anew(half_anew: Part) -> Iterator[str]:
    """Which columns are whole, how many are new, and how far the new numbers spread."""
    mlp = tuple(
        random_normal(*shape, seed=n) for n, shape in enumerate([(40, 50)] * 2 + [(50, 40)])
    )
    for share in (0.5, 0.25):
        got = call(half_anew, *mlp, share, 0.02, torch.Generator().manual_seed(1))
        _require_matrices("The expert", got, mlp, 40)
        rows = [(got[0], mlp[0]), (got[1], mlp[1]), (got[2].T, mlp[2].T)]
        fresh = torch.stack([(new != old).float().mean(1) for new, old in rows])
        _require_whole_columns(fresh, share)
        spread = float(torch.cat([(new)[fresh[0] > 0] for new, _ in rows]).std())
        if abs(spread - 0.02) > 0.002:
            reason = mutants.the_wrong_spread if spread > 0.1 else mutants.zeros_for_noise
            raise Mistake(
                f"The new numbers have a standard deviation of {spread:.3g}; 0.02 was wanted.",
                told_by(reason) if spread > 0.1 or spread == 0 else "",
            )
        drawn = torch.cat([new[fresh[0] > 0] for new, _ in rows])
        if len(drawn.unique(dim=0)) < len(drawn):
            wrong = "Some new columns, or matrices, hold the same numbers as others."
            raise Mistake(wrong, told_by(mutants.same_noise))
        yield f"a share of {share}: {round(40 * share)} of 40 columns are new, the others untouched"


def _require_whole_columns(fresh: Tensor, share: float) -> None:
    """Raises Mistake unless a column is new in all three matrices or in none.

    Args:
        fresh: three rows, gate, up, down: the share of new numbers in each column.
        share: of the columns that should be new.
    """
    touched = [int((row > 0).sum()) for row in fresh]
    if ((fresh > 0) & (fresh < 0.9)).any():
        raise Mistake(
            "There are columns of which some numbers are new and some old.",
            told_by(mutants.single_numbers),
        )
    wanted = round(share * fresh.shape[1])
    whole = int((fresh == 0).all(0).sum())
    if touched != [wanted] * 3 or whole != fresh.shape[1] - wanted:
        idle = touched[0] > 0 and not any(touched[1:])
        reason = mutants.gate_alone if idle else mutants.a_half_of_its_own_each
        raise Mistake(
            f"Of {fresh.shape[1]} columns {wanted} should be new, in all three matrices; in yours "
            f"{touched[0]}, {touched[1]} and {touched[2]} are, and {whole} are old in all three.",
            told_by(reason) if idle or touched == [wanted] * 3 else "",
        )


def check_mended_shuffle(mended_shuffle: Part) -> Iterator[str]:
    """What the MLP computes stays, its columns move."""
    mlp = tuple(random_normal(*shape, seed=n) for n, shape in enumerate([(9, 4), (9, 4), (4, 9)]))
    x_XD = random_normal(7, 4, seed=8)
    want_XD = _computed(mlp, x_XD)
    got = call(mended_shuffle, *mlp, torch.Generator().manual_seed(0))
    _require_matrices("The MLP", got, mlp, 9)
    got_XD = _computed(got, x_XD)
    if not same(got_XD, want_XD, 1e-4):
        forgotten = same(got[2], mlp[2])
        raise Mistake(
            f"For the same token the MLP said {numbers(want_XD[0])}, and shuffled it says "
            f"{numbers(got_XD[0])}.",
            told_by(mutants.down_forgotten if forgotten else mutants.orders_of_their_own),
        )
    yield "it computes what it computed before"
    if same(got[0], mlp[0]):
        raise Mistake("Every column is where it was.", told_by(mutants.nothing_shuffled))
    yield "and its columns are in another order"


def check_louder(louder: Part) -> Iterator[str]:
    """By hand, then one width, then all weights at once."""
    for weights, widths, want, what in (
        (
            [[0.25, 0.25], [0.4, 0.1]],
            (12, 4),
            6.0,
            "weights that come to 1/2, a third of the width",
        ),
        ([[0.3, 0.2], [0.2, 0.1]], (10, 5), 5.0, "weights that come to 1/2 and 3/10"),
        ([[0.7, 0.3]], (8, 8), 1.0, "weights that come to 1, experts as wide as the MLP"),
    ):
        got = one_number(call(louder, torch.tensor(weights), *widths), "louder")
        if abs(got - want) > 1e-3 * want:
            questions = (torch.tensor(weights), *widths)
            known = (m for m in MUTANTS["louder"] if math.isclose(m(*questions), got, rel_tol=1e-4))
            raise Mistake(
                f"For the weights {weights}, a dense width of {widths[0]} and experts of {widths[1]}, "
                f"the factor is {want:g}, and yours is {got:.4g}.",
                next(map(told_by, known), ""),
            )
        yield f"{what}: {want:g}"
