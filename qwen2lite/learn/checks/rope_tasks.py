"""What the exercise 22_rope asks beside the parts: a rounding, and how two layouts relate."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.checks.rope import check_rotary_tables, tables, turned_as_complex_numbers
from qwen2lite.learn.contract import Mistake, call, random_normal, same
from qwen2lite.learn.mutants.rope import interleaved

Part = Callable[..., Any]


def check_first_wrong_position(first_wrong_position: Part) -> Iterator[str]:
    """The exercise's question: the first whole number that bfloat16 doesn't have."""
    got = call(first_wrong_position)
    if isinstance(got, bool) or not isinstance(got, int):
        raise Mistake(f"first_wrong_position returned a {type(got).__name__}, not a whole number.")
    rounded = int(torch.tensor(got).bfloat16())
    if rounded == got:
        raise Mistake(
            f"{got} is not it: bfloat16 holds {got} exactly.",
            "bfloat16 has 8 bits for the digits of a number. How far can one count with 8 bits?",
        )
    if got != 257:
        raise Mistake(
            f"{got} becomes {rounded}, so it is wrong, but it is not the first that is.",
            "Try the numbers from 0 on: torch.tensor(p).bfloat16() and back to int.",
        )
    yield "257: bfloat16 makes 256 of it"


def check_mended_tables(mended_tables: Part) -> Iterator[str]:
    """The exercise's repaired function: it has to do what rotary_tables does."""
    yield from check_rotary_tables(mended_tables)


def check_half_split_order(half_split_order: Part) -> Iterator[str]:
    """Reordering and then turning halves is turning neighbours and then reordering."""
    for size in (4, 8, 10):
        got = call(half_split_order, size)
        order = got.tolist() if isinstance(got, torch.Tensor) else list(got)
        if sorted(order) != list(range(size)):
            raise Mistake(
                f"half_split_order({size}) is {order}: each of 0 … {size - 1} belongs in it once."
            )
        x_BNTH = random_normal(2, 3, 5, size)
        neighbours = interleaved(x_BNTH, *tables(torch.arange(5), size))
        halves = turned_as_complex_numbers(x_BNTH[..., order], torch.arange(5))
        if not same(halves, neighbours[..., order]):
            raise Mistake(
                f"half_split_order({size}) is {order}: turning the halves of x[order] is not what "
                "turning the neighbours of x and then reordering gives.",
                _why_not_this_order(order),
            )
    yield "both layouts are the same turn, in another order"


def _why_not_this_order(order: list[int]) -> str:
    pairs = len(order) // 2
    inverse = [i // 2 + pairs * (i % 2) for i in range(len(order))]
    if order == inverse:
        return "This is the way back, from halves to neighbours: x[order][i] is x[order[i]]."
    return (
        "Neighbours 2i and 2i + 1 are one pair. Place i of the new order wants the first of them, "
        "place i + H/2 the second."
    )
