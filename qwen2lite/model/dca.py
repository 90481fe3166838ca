r"""Dual Chunk Attention: read any length without meeting a distance beyond the trained ones.

The text is cut into chunks. A key stands at its place *within its chunk*, for good. A query stands
at one of three places, by whether the key is in its own chunk (intra), in the one before
(successive) or further back (inter). Near by, all distances are true; far away they are squeezed
into what the model has seen. Nothing is trained, and nothing in the cache ever changes.
"""

from collections.abc import Callable, Sequence

import torch

from qwen2lite.model.attention import GroupedQueryAttention
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.pieces import fused_attend_piece


def dca_positions(
    positions_T: torch.Tensor, chunk_size: int, local_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Where tokens stand for RoPE: in their own chunk, as seen from the next, and from afar.

    A chunk has $s = \mathrm{chunk\_size} - \mathrm{local\_size}$ tokens, and no place is beyond
    chunk_size. A key, and a query that asks its own chunk, stands at $i \bmod s$. Asking the chunk
    before, a query stands s further on, which is the truth, until chunk_size stops it: the first
    local_size of a chunk keep every distance. Asking further back, all stand at the last place.

    The paper stops at its chunk size - 1, the published code at chunk_size; we follow the code.

    Args:
        positions_T: positions in the text, counted from 0.
        chunk_size: the largest distance that may occur; at most the trained length.
        local_size: distance up to which all distances stay true, where s is no smaller.

    Returns:
        intra_T (also of keys), successive_T and inter_T.

    Source: arXiv 2402.17463, section 3 (eq. 2, 5, 7); names and last place as in vLLM's code.
    """
    chunk_len = chunk_size - local_size
    intra_T = positions_T % chunk_len
    successive_T = (intra_T + chunk_len).clamp(max=chunk_size)
    inter_T = torch.full_like(intra_T, min(2 * chunk_len - 1, chunk_size))
    return intra_T, successive_T, inter_T


def dca_distances(
    length: int,
    chunk_size: int,
    local_size: int,
    dca_positions: Callable[..., tuple[torch.Tensor, ...]] = dca_positions,
) -> torch.Tensor:
    """The distance that RoPE shows to each query (row) for each key (column), as one matrix.

    For looking at and for tests: the model never builds it.

    Args:
        length: tokens of the text.
        chunk_size: see `dca_positions`.
        local_size: see `dca_positions`.
        dca_positions: the part that says where tokens stand.

    Returns:
        distances_TS; -1 where a query may not look.
    """
    positions_T = torch.arange(length)
    places = torch.stack(dca_positions(positions_T, chunk_size, local_size))
    chunk_T = positions_T // (chunk_size - local_size)
    chunks_back_TS = (chunk_T[:, None] - chunk_T).clamp(0, 2)
    distances_TS = places[chunks_back_TS, positions_T[:, None]] - places[0]
    return distances_TS.masked_fill(positions_T[:, None] < positions_T, -1)


def dca_attend(
    queries: Sequence[torch.Tensor],
    k_BKSH: torch.Tensor,
    v_BKSH: torch.Tensor,
    chunk_len: int,
    merge_pieces: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Causal attention in which the query changes with the chunk that it asks.

    Chunk by chunk, the queries attend to up to four pieces of the keys, each whole or a causal
    square, and the pieces are merged: one softmax over all keys, and never a T×S matrix.

    Args:
        queries: q_BNTH of the last T positions three times, turned to their intra, successive and
            inter places.
        k_BKSH: keys of all S positions, turned to their places within their chunks.
        v_BKSH: values of all S positions.
        chunk_len: tokens in a chunk.
        merge_pieces: puts pieces together.

    Returns:
        mixed_BNTH.

    Source: arXiv 2402.17463, section 3.4, eq. 9.
    """
    intra, successive, inter = queries
    length = k_BKSH.shape[2]
    start = length - intra.shape[2]
    mixed = []
    for chunk in range(start // chunk_len * chunk_len, length, chunk_len):
        first, end = max(start, chunk), min(length, chunk + chunk_len)
        before = max(0, chunk - chunk_len)
        pieces = (
            (inter, 0, before, False),
            (successive, before, chunk, False),
            (intra, chunk, first, False),
            (intra, first, end, True),
        )
        rows = slice(first - start, end - start)
        answers = [
            fused_attend_piece(q[:, :, rows], k_BKSH[:, :, a:b], v_BKSH[:, :, a:b], causal)
            for q, a, b, causal in pieces
            if a < b
        ]
        mixed.append(merge_pieces(*zip(*answers, strict=True)))
    return torch.cat(mixed, dim=2)


def length_scale(length_T: torch.Tensor, original_max_position_embeddings: int) -> torch.Tensor:
    r"""YaRN's attention factor for a text of any length: $\max(1,\; 0.1 \ln(n / L) + 1)$.

    Args:
        length_T: n, tokens of a text.
        original_max_position_embeddings: L, the trained length.

    Source: arXiv 2501.15383 (Qwen2.5-1M), section 5.1; vLLM's code.
    """
    stretch_T = length_T / original_max_position_embeddings
    return (0.1 * stretch_T.log() + 1).clamp(min=1)


class DualChunkAttention(GroupedQueryAttention):
    """`GroupedQueryAttention` in chunks: same weights, other places for RoPE.

    With `original_max_position_embeddings` in the config, scores grow with the length as in YaRN:
    each query's by the square of the factor for *the tokens that it sees*. The published code takes
    the length of the whole prompt instead and puts half of the factor on the keys, so that the same
    text read in two pieces gives other numbers. The two agree on the last token of a prompt.

    Args:
        config: gives D, N, K, H and `dual_chunk_attention_config`.
        apply_rope: turns queries and keys.
        dca_attend: mixes the values.
        merge_pieces: given to dca_attend.

    Source: arXiv 2407.10671, section 3.2; arXiv 2402.17463.
    """

    def __init__(
        self,
        config: Qwen2Config,
        apply_rope: Callable[..., torch.Tensor],
        dca_attend: Callable[..., torch.Tensor],
        merge_pieces: Callable[..., torch.Tensor],
    ):
        super().__init__(config, apply_rope, dca_attend)
        chunks = config.dual_chunk_attention_config or {}
        self.chunk_len = chunks["chunk_size"] - chunks["local_size"]
        self.trained_length = chunks["original_max_position_embeddings"]
        self.merge_pieces = merge_pieces

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D].

        Args:
            x_BTD: normalised input of T new positions.
            cos: of the intra, successive and inter places of the new positions, shape [3, T, H].
            sin: of the same.
            mask: has to be None.
            cache: earlier positions; the new ones are added to it.
            layer: this layer's place in the cache.

        Raises:
            ValueError: a mask was given.
        """
        if mask is not None:
            raise ValueError(
                "dual chunk attention takes no mask: padding would move the borders of the chunks; "
                "read the texts one by one"
            )
        q_BNTH = self.split_heads(self.q_proj(x_BTD))
        k_BKSH = self.apply_rope(self.split_heads(self.k_proj(x_BTD)), cos[0], sin[0])
        v_BKSH = self.split_heads(self.v_proj(x_BTD))
        if cache is not None:
            k_BKSH, v_BKSH = cache.update(layer, k_BKSH, v_BKSH)
        if self.trained_length:
            q_BNTH = q_BNTH * self._growth(k_BKSH.shape[2], q_BNTH)
        queries = [self.apply_rope(q_BNTH, *tables) for tables in zip(cos, sin, strict=True)]
        mixed_BNTH = self.attend(queries, k_BKSH, v_BKSH, self.chunk_len, self.merge_pieces)
        return self.o_proj(mixed_BNTH.transpose(1, 2).flatten(-2))

    def _growth(self, length: int, q_BNTH: torch.Tensor) -> torch.Tensor:
        """What each of the last queries is multiplied by, shape [T, 1]."""
        start = length - q_BNTH.shape[2]
        seen_T = torch.arange(start + 1, length + 1, device=q_BNTH.device)
        return length_scale(seen_T, self.trained_length).square()[:, None].to(q_BNTH.dtype)
