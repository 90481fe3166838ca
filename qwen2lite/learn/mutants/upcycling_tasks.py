"""Wrong answers to the tasks of the exercise 63_upcycling.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Matrices = tuple[Tensor, Tensor, Tensor]


def rounded_down(dense_width: int, width: int, experts: int) -> int:
    """Rounded down, so that the last experts find no columns: a copy that is begun counts as a whole
    one."""
    return experts * width // dense_width


def one_more_to_be_safe(dense_width: int, width: int, experts: int) -> int:
    """One copy too many where the experts fill the copies to the last column. Rounding up is not
    rounding down and adding 1."""
    return experts * width // dense_width + 1


def cut_within(dense_width: int, width: int, experts: int) -> int:
    """Only whole experts are cut out of a copy, and what is left at its end is thrown away. Laid end
    to end, an expert may take the end of one copy and the beginning of the next: the report's
    formula counts columns, not experts."""
    return -(-experts // (dense_width // width)) if dense_width >= width else experts


def the_other_way_round(dense_width: int, width: int, experts: int) -> int:
    """This is how many experts a copy holds. Wanted is how many copies the experts need."""
    return -(-dense_width // width)


def down_left_alone(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    orders: Sequence[Tensor],
    width: int,
    count: int,
) -> list[Matrices]:
    """gate_proj and up_proj are shuffled and down_proj is not, so that each column's answer goes
    where another one's belongs. A column is a row of gate_proj, the same row of up_proj and the same
    column of down_proj: one order for all three."""
    columns = torch.cat(list(orders))
    plain = torch.cat([torch.arange(len(gate_FD)) for _ in orders])
    return _cut((gate_FD, up_FD, down_DF), (columns, columns, plain), width, count)


def up_left_alone(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    orders: Sequence[Tensor],
    width: int,
    count: int,
) -> list[Matrices]:
    """gate_proj and down_proj are shuffled and up_proj is not: each gate opens for another column's
    value. One order for all three."""
    columns = torch.cat(list(orders))
    plain = torch.cat([torch.arange(len(gate_FD)) for _ in orders])
    return _cut((gate_FD, up_FD, down_DF), (columns, plain, columns), width, count)


def not_shuffled(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    orders: Sequence[Tensor],
    width: int,
    count: int,
) -> list[Matrices]:
    """The copies are laid end to end as they are. Without the shuffle the experts of each copy are
    cut at the same places, and many are equal or nearly so: every copy has an order of its own."""
    plain = torch.cat([torch.arange(len(gate_FD)) for _ in orders])
    return _cut((gate_FD, up_FD, down_DF), (plain, plain, plain), width, count)


def copies_alike(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    orders: Sequence[Tensor],
    width: int,
    count: int,
) -> list[Matrices]:
    """All copies are shuffled in the first one's order. Each copy has its own, or the same columns
    meet again in every expert that begins at the same place."""
    columns = orders[0].repeat(len(orders))
    return _cut((gate_FD, up_FD, down_DF), (columns, columns, columns), width, count)


def rest_of_each_copy_dropped(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    orders: Sequence[Tensor],
    width: int,
    count: int,
) -> list[Matrices]:
    """What is left at the end of *each* copy is dropped, and then there are too few experts, or they
    begin at the wrong places. Lay the shuffled copies end to end first, and cut then."""
    usable = len(gate_FD) // width * width
    columns = torch.cat([order[:usable] for order in orders])
    return _cut((gate_FD, up_FD, down_DF), (columns, columns, columns), width, count)


def single_numbers(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """Single numbers start anew, here and there, so that no column stays whole. That is another way
    to read the report; the task asks for whole columns, of which the others go on as they were."""
    new = []
    for matrix in (gate_FD, up_FD, down_DF):
        fresh = torch.rand(matrix.shape, generator=rng) < share
        new.append(matrix.where(~fresh, std * torch.randn(matrix.shape, generator=rng)))
    return new[0], new[1], new[2]


def a_half_of_its_own_each(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """Each matrix draws its own half. A column is whole only where it stays in all three, which is
    one in eight: draw once, and use it for all."""
    return _anew((gate_FD, up_FD, down_DF), share, std, rng, draw_once=False)


def gate_alone(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """Only gate_proj starts anew. A column consists of three pieces, and up_proj and down_proj still
    have the old ones."""
    new = _anew((gate_FD, up_FD, down_DF), share, std, rng)
    return new[0], up_FD.clone(), down_DF.clone()


def zeros_for_noise(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """The new columns are zeros. A SwiGLU's column of zeros gets no gradient in any of its three
    pieces, so it stays zero for ever: it needs random numbers."""
    return _anew((gate_FD, up_FD, down_DF), share, 0.0, rng)


def the_wrong_spread(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """The new numbers have a standard deviation of 1: `randn` gives that, and it has to be multiplied
    by `std`. With the usual 0.02 such columns would be fifty times too loud."""
    return _anew((gate_FD, up_FD, down_DF), share, 1.0, rng)


def same_noise(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, share: float, std: float, rng: torch.Generator
) -> Matrices:
    """One noise is used for several columns or matrices. What begins alike gets the same gradient and
    stays alike: draw for each."""
    new = _anew((gate_FD, up_FD, down_DF), share, std, rng)
    chosen = (new[0] != gate_FD).any(1)
    new[1][chosen] = new[0][chosen]
    return new


def orders_of_their_own(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, rng: torch.Generator
) -> Matrices:
    """Each matrix is shuffled in an order of its own, so that a gate opens for one column's value and
    the result goes to a third one's place. No shape is off, all numbers are there, and what the model
    knew is gone: draw one order for all three."""
    width = len(gate_FD)
    gate = gate_FD[torch.randperm(width, generator=rng)]
    up = up_FD[torch.randperm(width, generator=rng)]
    down = down_DF[:, torch.randperm(width, generator=rng)]
    return gate, up, down


def down_forgotten(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, rng: torch.Generator
) -> Matrices:
    """down_proj is left as it was. Its columns belong to the rows of the other two, and have to go
    where these go."""
    order = torch.randperm(len(gate_FD), generator=rng)
    return gate_FD[order], up_FD[order], down_DF.clone()


def nothing_shuffled(
    gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, rng: torch.Generator
) -> Matrices:
    """Nothing is shuffled. That keeps what the MLP computes, and does nothing for the experts."""
    return gate_FD.clone(), up_FD.clone(), down_DF.clone()


def width_forgotten(weights: Tensor, dense_width: int, width: int) -> float:
    """The experts' width is not in it. An expert has only a part of the dense columns, and they would
    be too quiet even if their weights came to 1."""
    return 1 / float(weights.sum(-1).mean())


def weights_forgotten(weights: Tensor, dense_width: int, width: int) -> float:
    """The weights are not in it. They come to less than 1, and an answer counts by its weight."""
    return dense_width / width


def upside_down(weights: Tensor, dense_width: int, width: int) -> float:
    """This is how loud the experts are, a number below 1 as a rule. The factor that makes up for it is
    one over that."""
    return float(weights.sum(-1).mean()) * width / dense_width


def mean_of_all(weights: Tensor, dense_width: int, width: int) -> float:
    """The mean of single weights is in it. A token adds up k of them: sum over the last dimension
    first, then take the mean over the tokens."""
    return dense_width / width / float(weights.mean())


def _cut(
    mlp: Matrices, columns: tuple[Tensor, Tensor, Tensor], width: int, count: int
) -> list[Matrices]:
    pieces = [
        [part[start : start + width] for part in columns]
        for start in range(0, min(count * width, len(columns[0]) - width + 1), width)
    ]
    return [(mlp[0][g], mlp[1][u], mlp[2][:, d]) for g, u, d in pieces]


def _anew(
    mlp: Matrices, share: float, std: float, rng: torch.Generator, draw_once: bool = True
) -> Matrices:
    width = len(mlp[0])
    chosen = torch.randperm(width, generator=rng)[: round(share * width)]
    new = []
    for matrix in (mlp[0], mlp[1], mlp[2].T):
        fresh = matrix.clone()
        fresh[chosen] = std * torch.randn(len(chosen), matrix.shape[1], generator=rng)
        new.append(fresh)
        if not draw_once:
            chosen = torch.randperm(width, generator=rng)[: round(share * width)]
    return new[0], new[1], new[2].T


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "copies_needed": (rounded_down, one_more_to_be_safe, cut_within, the_other_way_round),
    "cut_experts": (
        down_left_alone,
        up_left_alone,
        not_shuffled,
        copies_alike,
        rest_of_each_copy_dropped,
    ),
    "half_anew": (
        single_numbers,
        a_half_of_its_own_each,
        gate_alone,
        zeros_for_noise,
        the_wrong_spread,
        same_noise,
    ),
    "mended_shuffle": (orders_of_their_own, down_forgotten, nothing_shuffled),
    "louder": (width_forgotten, weights_forgotten, upside_down, mean_of_all),
}
"""The wrong versions of each task."""
