"""Wrong answers to the tasks of the exercise 53_dca that are no part."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.pieces import merge_pieces

Pieces = Sequence[Tensor]


def chunk_length_alone(chunk_size: int, local_size: int) -> int:
    """Distances are said to be true within one chunk only. The chunk before is asked from one chunk
    further on, which is the truth too, until chunk_size stops it."""
    return chunk_size - local_size


def trained_length_alone(chunk_size: int, local_size: int) -> int:
    """The distances run from 0: token chunk_size, counted from 0, is the one that is chunk_size away
    from the first, and it is token number chunk_size + 1."""
    return chunk_size


def window_alone(chunk_size: int, local_size: int) -> int:
    """local_size is the distance that is true at *any* length. From the beginning of a text many more
    are."""
    return local_size


def two_chunks(chunk_size: int, local_size: int) -> int:
    """Two whole chunks are taken for true. In the second one chunk_size stops a query after
    local_size places."""
    return 2 * (chunk_size - local_size)


def old_not_shrunk(mixed: Sequence[Tensor], lse: Sequence[Tensor]) -> Tensor:
    """When a louder piece comes, what was added up so far has to shrink by e to (old - new maximum):
    it was counted against a smaller maximum, and so weighs too much."""
    top_BNT = lse[0]
    total_BNT, sum_BNTH = torch.ones_like(top_BNT), mixed[0].to(top_BNT.dtype)
    for piece_BNTH, one_BNT in zip(mixed[1:], lse[1:], strict=True):
        top_BNT = torch.maximum(top_BNT, one_BNT)
        new_BNT = (one_BNT - top_BNT).exp()
        total_BNT = total_BNT + new_BNT
        sum_BNTH = sum_BNTH + new_BNT[..., None] * piece_BNTH
    return (sum_BNTH / total_BNT[..., None]).to(mixed[0].dtype)


def only_the_sum_shrunk(mixed: Pieces, lse: Pieces) -> Tensor:
    """The mixture shrinks with a new maximum and the total of the weights doesn't, so the weights no
    longer come to 1: both were counted against the old maximum."""
    top_BNT = lse[0]
    total_BNT, sum_BNTH = torch.ones_like(top_BNT), mixed[0].to(top_BNT.dtype)
    for piece_BNTH, one_BNT in zip(mixed[1:], lse[1:], strict=True):
        highest_BNT = torch.maximum(top_BNT, one_BNT)
        old_BNT, new_BNT = (top_BNT - highest_BNT).exp(), (one_BNT - highest_BNT).exp()
        total_BNT = total_BNT + new_BNT
        sum_BNTH = old_BNT[..., None] * sum_BNTH + new_BNT[..., None] * piece_BNTH
        top_BNT = highest_BNT
    return (sum_BNTH / total_BNT[..., None]).to(mixed[0].dtype)


def maximum_of_the_last(mixed: Pieces, lse: Pieces) -> Tensor:
    """The newest lse is taken for the maximum, also where an older one is larger; then e is raised to
    something large, and may be infinite."""
    top_BNT = lse[0]
    total_BNT, sum_BNTH = torch.ones_like(top_BNT), mixed[0].to(top_BNT.dtype)
    for piece_BNTH, one_BNT in zip(mixed[1:], lse[1:], strict=True):
        old_BNT, top_BNT = (top_BNT - one_BNT).exp(), one_BNT
        total_BNT = old_BNT * total_BNT + 1
        sum_BNTH = old_BNT[..., None] * sum_BNTH + piece_BNTH
    return (sum_BNTH / total_BNT[..., None]).to(mixed[0].dtype)


def last_piece_forgotten(mixed: Pieces, lse: Pieces) -> Tensor:
    """The last piece is left out; it is the one that holds the query's own chunk."""
    return merge_pieces(mixed[:-1] or mixed, lse[:-1] or lse)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "tokens_that_agree": (chunk_length_alone, trained_length_alone, window_alone, two_chunks),
    "running_merge": (
        old_not_shrunk,
        only_the_sum_shrunk,
        maximum_of_the_last,
        last_piece_forgotten,
    ),
}
"""The wrong versions of each task."""
