"""Wrong versions of `merge_pieces`. The docstring of each says what the mistake was."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.pieces import merge_pieces

Pieces = Sequence[Tensor]


def _summed(weights: Pieces, mixed: Pieces) -> Tensor:
    """Each piece times its weights, added up, in the dtype of the first piece."""
    products = [w[..., None] * piece for w, piece in zip(weights, mixed, strict=True)]
    return torch.stack(products).sum(0).to(mixed[0].dtype)


def averaged(mixed: Pieces, lse: Pieces) -> Tensor:
    """The pieces are averaged. One of them may hold all the keys that matter to a query: each
    counts by its lse."""
    return torch.stack(tuple(mixed)).mean(0)


def added_up(mixed: Pieces, lse: Pieces) -> Tensor:
    """The pieces are added up. Each has spent a whole softmax already, so the weights of all keys
    together come to the number of pieces: they have to come to 1."""
    return torch.stack(tuple(mixed)).sum(0)


def lse_for_weights(mixed: Pieces, lse: Pieces) -> Tensor:
    """The lse are taken for weights as they are. They are logarithms: a piece counts e to its
    lse."""
    stacked = torch.stack(tuple(lse))
    return _summed(tuple(stacked / stacked.sum(0)), mixed)


def not_divided(mixed: Pieces, lse: Pieces) -> Tensor:
    """The weights are not divided by their sum, so they don't come to 1."""
    stacked = torch.stack(tuple(lse))
    return _summed(tuple((stacked - stacked.amax(0)).exp()), mixed)


def powers_of_two(mixed: Pieces, lse: Pieces) -> Tensor:
    """The weights are powers of 2. Some kernels give their lse to the base 2, these are natural
    logarithms (SGLang merged the one as the other, #40903, and the newest tokens faded)."""
    return merge_pieces(mixed, [one * math.log(2) for one in lse])


def over_the_queries(mixed: Pieces, lse: Pieces) -> Tensor:
    """The softmax runs over the queries. It runs over the pieces: what one query spends on all of
    them is 1."""
    return _summed([one.softmax(-1) for one in lse], mixed)


def no_maximum(mixed: Pieces, lse: Pieces) -> Tensor:
    """e is raised to the lse itself. Qwen2's scores reach hundreds, and e to the 89 has no float32:
    subtract the largest lse of each query first (NATTEN #202)."""
    powers = [one.exp() for one in lse]
    total = torch.stack(powers).sum(0)
    return _summed([power / total for power in powers], mixed)


def one_maximum_for_all(mixed: Pieces, lse: Pieces) -> Tensor:
    """The largest lse of all queries is subtracted. A query whose own are far smaller is left with
    0 / 0: every query needs the maximum over its own pieces."""
    stacked = torch.stack(tuple(lse))
    powers = (stacked - stacked.max()).exp()
    return _summed(tuple(powers / powers.sum(0)), mixed)


def rounded_lse(mixed: Pieces, lse: Pieces) -> Tensor:
    """The lse are cast to the dtype of the pieces. bfloat16 has eight bits: near 200 it counts in
    whole numbers, and half of one makes a factor of 1.6 in the weight."""
    return merge_pieces(mixed, [one.to(mixed[0].dtype) for one in lse])


def left_in_float32(mixed: Pieces, lse: Pieces) -> Tensor:
    """The weights are float32, and so is the product; the layer goes on in the dtype of the pieces:
    cast back at the end."""
    return merge_pieces([piece.float() for piece in mixed], lse)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "merge_pieces": (
        averaged,
        added_up,
        lse_for_weights,
        not_divided,
        powers_of_two,
        over_the_queries,
        no_maximum,
        one_maximum_for_all,
        rounded_lse,
        left_in_float32,
    ),
}
"""The wrong versions of the part."""
