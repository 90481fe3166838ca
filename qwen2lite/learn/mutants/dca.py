"""Wrong versions of `dca_positions` and `length_scale`. The docstring says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.dca import dca_positions, length_scale

Places = tuple[Tensor, Tensor, Tensor]


def counted_through(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """Tokens keep their place in the whole text. It starts again at 0 with every chunk, or
    distances grow beyond what was trained (in the published code the mod is easily overlooked: it
    stands where the tables are looked up, ChunkLlama #4)."""
    _, successive_T, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return positions_T, successive_T, inter_T


def chunks_of_chunk_size(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """The chunks have chunk_size tokens. That is the largest distance; a chunk has chunk_size -
    local_size."""
    intra_T = positions_T % chunk_size
    last_T = torch.full_like(intra_T, chunk_size)
    return intra_T, (intra_T + chunk_size - local_size).clamp(max=chunk_size), last_T


def counted_from_the_piece(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """Positions are counted from the first token that is given. With a cache that is not the first
    of the text: positions_T says where each stands."""
    return dca_positions(positions_T - positions_T[0], chunk_size, local_size)


def not_cut_at_decode(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """A single token keeps its place in the whole text. While generating, too, a key stands at its
    place within its chunk: it goes into the cache for good."""
    intra_T, successive_T, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return (positions_T if len(positions_T) == 1 else intra_T), successive_T, inter_T


def stops_one_early(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """The last place is chunk_size - 1. So it is in the paper, which writes c - 1; the published
    code goes to chunk_size itself, and Qwen's models were run with the code."""
    intra_T, successive_T, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, successive_T.clamp(max=chunk_size - 1), inter_T.clamp(max=chunk_size - 1)


def never_stops(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """A query that asks the chunk before goes on beyond chunk_size, to distances that were never
    trained: clamp it there."""
    intra_T, _, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, intra_T + chunk_size - local_size, inter_T


def next_chunk_at_the_end(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """All queries ask the chunk before from the last place, as they ask those further back. The
    first local_size of a chunk keep the true distance, or neighbours across its border lose each
    other."""
    intra_T, _, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, inter_T, inter_T


def not_moved_on(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """A query asks the chunk before from its place in its own, so that those keys seem to come
    after it. It stands one chunk, chunk_size - local_size, further on."""
    intra_T, _, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, intra_T, inter_T


def moved_by_the_window(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """A query that asks the chunk before is moved on by local_size. It is one chunk further on:
    chunk_size - local_size."""
    intra_T, _, inter_T = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, (intra_T + local_size).clamp(max=chunk_size), inter_T


def far_beyond_the_next(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """Asking far back, queries stand at chunk_size also where the chunks are so short that no query
    gets there: the last place is that of a chunk's last token, seen from the next chunk."""
    intra_T, successive_T, _ = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, successive_T, torch.full_like(intra_T, chunk_size)


def far_as_the_piece(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """Asking far back, queries stand at the largest place among the tokens that were given. With a
    cache one token comes alone, and its place is the same as when it came with all others."""
    intra_T, successive_T, _ = dca_positions(positions_T, chunk_size, local_size)
    return intra_T, successive_T, torch.full_like(intra_T, int(successive_T.max()))


def on_the_default_device(positions_T: Tensor, chunk_size: int, local_size: int) -> Places:
    """A tensor is made without saying where, and is on the CPU also when the model is on a GPU: give
    it the positions' device, or make it from them, as `torch.full_like` does."""
    intra_T, successive_T, _ = dca_positions(positions_T, chunk_size, local_size)
    last = min(2 * (chunk_size - local_size) - 1, chunk_size)
    return intra_T, successive_T, torch.full(positions_T.shape, last)


def shrinks_short_texts(length_T: Tensor, original_max_position_embeddings: int) -> Tensor:
    """Within the trained length the factor is below 1, and for a few tokens even below 0. It is
    never less than 1."""
    return 0.1 * (length_T / original_max_position_embeddings).log() + 1


def common_logarithm(length_T: Tensor, original_max_position_embeddings: int) -> Tensor:
    """The logarithm is to the base 10. It is the natural one, as in YaRN."""
    return (0.1 * (length_T / original_max_position_embeddings).log10() + 1).clamp(min=1)


def squared_already(length_T: Tensor, original_max_position_embeddings: int) -> Tensor:
    """The factor is squared already. Published code puts it on queries and keys, and the scores get
    the square by themselves; here the layer squares it."""
    return length_scale(length_T, original_max_position_embeddings).square()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "dca_positions": (
        # Where two of them answer alike, the one that shows only there stands first.
        not_cut_at_decode,
        counted_through,
        far_beyond_the_next,
        far_as_the_piece,
        chunks_of_chunk_size,
        counted_from_the_piece,
        stops_one_early,
        never_stops,
        next_chunk_at_the_end,
        not_moved_on,
        moved_by_the_window,
        on_the_default_device,
    ),
    "length_scale": (shrinks_short_texts, common_logarithm, squared_already),
}
"""The wrong versions of each part."""
