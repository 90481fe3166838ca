"""What `dca_positions` and `length_scale` have to do. Expected places are by the rules, one by one.

With chunk_size 7 and local_size 2 a chunk has 5 tokens: the Qwen2.5-1M report's figures 2(b)
and 5(a).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    meta_device,
    numbers,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.dca import MUTANTS, on_the_default_device

Part = Callable[..., Any]

_NAMES = ("intra", "successive", "inter")


def check_dca_positions(dca_positions: Part) -> Iterator[str]:
    """The figure's 15 tokens, then pieces as with a cache, then chunks shorter than their window."""
    _require_places(dca_positions, range(15), 7, 2)
    yield "15 tokens in chunks of 5, as in the figure: places, and where they stop"

    _require_places(dca_positions, [8, 9, 10, 11], 7, 2)
    _require_places(dca_positions, [13], 7, 2)
    _require_places(dca_positions, [5], 7, 2)
    yield "a piece of a text stands where it is in the text"

    for chunk_size, local_size in ((10, 4), (8, 6), (5, 4), (2, 1)):
        _require_places(dca_positions, range(12), chunk_size, local_size)
    yield "right for other chunks and windows, also where nobody reaches chunk_size"

    positions_T = torch.arange(3)
    with meta_device():
        got = call(dca_positions, positions_T, 7, 2)
    for name, place_T in zip(_NAMES, got, strict=True):
        if place_T.device != positions_T.device:
            wrong = f"The positions are on one device, and the {name} places on another."
            raise Mistake(wrong, told_by(on_the_default_device))
    yield "on the device of the positions"


def _require_places(dca_positions: Part, positions: Any, chunk_size: int, local_size: int) -> None:
    """Raises Mistake unless all three places are right; the first that is wrong is shown."""
    inputs = (torch.tensor(list(positions)), chunk_size, local_size)
    got = call(dca_positions, *inputs)
    if not isinstance(got, tuple) or len(got) != 3:
        raise Mistake(
            f"dca_positions returned {describe(got)}, and three tensors were wanted.",
            "End with `return intra_T, successive_T, inter_T`.",
        )
    rows = zip(*(_by_rule(position, chunk_size, local_size) for position in positions), strict=True)
    for number, want in enumerate(rows):
        name = f"the {_NAMES[number]} places of dca_positions"
        require_tensor(got[number], [len(want)], torch.int64, name)
        if got[number].tolist() != list(want):
            raise Mistake(
                f"For positions {_shown(positions)} with chunk_size {chunk_size} and local_size "
                f"{local_size}, {_NAMES[number]} is {got[number].tolist()}, "
                f"and should be {list(want)}.",
                usual_reason(_only(number), got[number], *inputs),
            )


def _shown(positions: Any) -> str:
    if isinstance(positions, range):
        return f"0 … {len(positions) - 1}"
    return str(positions)


def _by_rule(position: int, chunk_size: int, local_size: int) -> tuple[int, int, int]:
    chunk_len = chunk_size - local_size
    seen_from_the_next = [min(chunk_len + place, chunk_size) for place in range(chunk_len)]
    place = position % chunk_len
    return place, seen_from_the_next[place], seen_from_the_next[-1]


def _only(number: int) -> Iterator[Part]:
    """The known mistakes, each answering with one of its three places."""

    def one_of(mutant: Part) -> Part:
        def answer(*inputs: Any) -> Any:
            return mutant(*inputs)[number]

        answer.__doc__ = mutant.__doc__
        return answer

    return map(one_of, MUTANTS["dca_positions"])


def check_length_scale(length_scale: Part) -> Iterator[str]:
    """1 up to the trained length, 0.1 ln 2 + 1 at twice of it, and lengths in one tensor."""
    lengths_T, want = torch.tensor([1, 50, 100, 200, 400, 3200]), [1.0, 1.0, 1.0]
    want += [0.1 * math.log(stretch) + 1 for stretch in (2, 4, 32)]
    got = call(length_scale, lengths_T, 100)
    require_tensor(got, [6], torch.float32, "length_scale", "One factor for each length.")
    if not same(got, torch.tensor(want)):
        raise Mistake(
            f"Trained on 100 tokens, texts of {lengths_T.tolist()} have the factors {numbers(got)}, "
            f"and should have {numbers(torch.tensor(want))}.",
            usual_reason(MUTANTS["length_scale"], got, lengths_T, 100),
        )
    yield "1 up to the trained length, then 0.1 ln(n / L) + 1"
