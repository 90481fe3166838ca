"""What `merge_pieces` has to do. Expected values are by hand: weights of 1/4 and 3/4, and halves."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.pieces import MUTANTS

Pieces = tuple[torch.Tensor, ...]


def check_merge_pieces(merge_pieces: Callable[..., Any]) -> Iterator[str]:
    """Weights by hand, scores of hundreds, bfloat16, and one softmax over pieces of random keys."""
    mixed, lse = _pieces([10.0, 20.0], [[math.log(2), math.log(5)], [math.log(6), math.log(5)]])
    got = call(merge_pieces, mixed, lse)
    require_tensor(got, [1, 1, 2, 1], torch.float32, "merge_pieces")
    what = "Pieces 10 and 20, with lse ln 2 and ln 6 for one query, ln 5 and ln 5 for the other"
    _require(got, [17.5, 15.0], what, mixed, lse)
    yield "ln 2 and ln 6 weigh 1/4 and 3/4, equal lse a half each"

    loud = [[400.0, -400.0, 0.0], [400.0 + math.log(3), -400.0 + math.log(3), math.log(3)]]
    mixed, lse = _pieces([10.0, 20.0], loud)
    got = call(merge_pieces, mixed, lse)
    what = "Pieces 10 and 20, where the second lse is ln 3 more, from 400, -400 and 0 on"
    _require(got, [17.5, 17.5, 17.5], what, mixed, lse)
    yield "only differences of the lse count, however large they are"

    mixed, lse = _pieces([10.0, 20.0], [[200.0], [200.6]])
    mixed = tuple(piece.bfloat16() for piece in mixed)
    got = call(merge_pieces, mixed, lse)
    why = usual_reason(MUTANTS["merge_pieces"], got, mixed, lse)
    require_tensor(got, [1, 1, 1, 1], torch.bfloat16, "merge_pieces of bfloat16 pieces", why)
    _require(got, [16.5], "bfloat16 pieces 10 and 20, with lse 200 and 200.6", mixed, lse)
    yield "in bfloat16 the weights are still those of float32"

    yield from _check_one_softmax(merge_pieces)


def _check_one_softmax(merge_pieces: Callable[..., Any]) -> Iterator[str]:
    """Three pieces of 2, 4 and 1 keys against a softmax over all seven."""
    scores, values = 3 * random_normal(2, 3, 5, 7), random_normal(2, 3, 7, 4, seed=1)
    parts = list(zip(scores.split([2, 4, 1], -1), values.split([2, 4, 1], -2), strict=True))
    mixed = tuple((s.softmax(-1) @ v).requires_grad_() for s, v in parts)
    lse = tuple(s.logsumexp(-1).requires_grad_() for s, _ in parts)
    got = call(merge_pieces, mixed, lse)
    require_tensor(got, [2, 3, 5, 4], torch.float32, "merge_pieces of three pieces")
    if not same(got, scores.softmax(-1) @ values):
        why = usual_reason(MUTANTS["merge_pieces"], got, mixed, lse)
        raise Mistake("Three pieces of 2, 4 and 1 keys don't make one softmax over all 7.", why)
    leaves = {"a piece": mixed[2], "a lse": lse[0]}
    require_gradient(got, leaves, "merge_pieces")
    yield "any number of pieces, as one softmax over all keys, and gradients reach them"


def _pieces(values: list[float], lse: list[list[float]]) -> tuple[Pieces, Pieces]:
    """One head of one number: each piece gives its value to every query."""
    lse_BNT = tuple(torch.tensor(row).view(1, 1, -1) for row in lse)
    pairs = zip(values, lse_BNT, strict=True)
    return tuple(torch.full_like(one, value)[..., None] for value, one in pairs), lse_BNT


def _require(got: torch.Tensor, want: list[float], what: str, mixed: Pieces, lse: Pieces) -> None:
    tolerance = 1e-5 if got.dtype == torch.float32 else 1e-2
    if not same(got.flatten().float(), torch.tensor(want), tolerance):
        raise Mistake(
            f"{what}: wanted {numbers(torch.tensor(want))}, got {numbers(got)}.",
            usual_reason(MUTANTS["merge_pieces"], got, mixed, lse),
        )
