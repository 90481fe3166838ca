"""Wrong versions of `dca_attend` and of the layer `dca`. The docstring says what the mistake was."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.mutants.pieces import averaged
from qwen2lite.model.cache import KVCache
from qwen2lite.model.dca import DualChunkAttention, dca_attend

Merge = Callable[..., Tensor]


def _one_softmax(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, asks_TS: Tensor, seen_TS: Tensor
) -> Tensor:
    """Attention with the whole matrix: which of the queries asks each key, and what is seen."""
    groups = queries[0].shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    versions = torch.stack([q_BNTH @ k_BNSH.mT for q_BNTH in queries])
    asked = torch.arange(len(queries)).view(-1, 1, 1, 1, 1) == asks_TS
    scores_BNTS = (versions * asked).sum(0) * k_BKSH.shape[-1] ** -0.5
    return scores_BNTS.masked_fill(~seen_TS, float("-inf")).softmax(-1) @ v_BNSH


def _rows(queries: Sequence[Tensor], k_BKSH: Tensor, chunk_len: int) -> tuple[Tensor, Tensor]:
    """How many chunks each query (row) looks back to each key, and whether the key is not later."""
    position_S = torch.arange(k_BKSH.shape[2])
    position_T = position_S[len(position_S) - queries[0].shape[2] :]
    back_TS = (position_T[:, None] // chunk_len - position_S // chunk_len).clamp(0, 2)
    return back_TS, position_S <= position_T[:, None]


def near_for_all(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """The successive queries ask all earlier chunks. They are for the chunk just before; to those
    further back, distances would come out too small: the inter queries ask them."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS.clamp(max=1), seen_TS)


def far_for_all(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """The inter queries ask all earlier chunks. The chunk just before has queries of its own, the
    successive ones, that keep near distances true."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS * 2, seen_TS)


def one_query_for_all(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """The intra queries ask all keys. Keys stand at their places within their chunks, so to earlier
    chunks distances would be wrong, even negative."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS * 0, seen_TS)


def far_chunks_forgotten(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """What lies two chunks back or more is not seen: that is a sliding window. Dual chunks see the
    whole text, the far part from the inter place."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS, seen_TS & (back_TS < 2))


def chunk_before_masked(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """The chunk before is masked like the query's own, with a causal triangle. All of it lies
    before the query, and all of it is seen."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    position_S = torch.arange(k_BKSH.shape[2])
    position_T = position_S[-back_TS.shape[0] :]
    triangle_TS = position_S % chunk_len <= position_T[:, None] % chunk_len
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS, seen_TS & (triangle_TS | (back_TS != 1)))


def own_chunk_whole(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """A query sees all of its own chunk, also what comes after it. Earlier chunks are seen whole;
    its own has the causal mask."""
    back_TS, seen_TS = _rows(queries, k_BKSH, chunk_len)
    position_S = torch.arange(k_BKSH.shape[2])
    position_T = position_S[-back_TS.shape[0] :]
    own_TS = position_S // chunk_len == position_T[:, None] // chunk_len
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS, seen_TS | own_TS)


def chunks_from_the_first_query(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """Chunks are counted from the first query. With a cache the queries are the last T of S
    positions, and the borders of the chunks stay where they are in the text."""
    start = k_BKSH.shape[2] - queries[0].shape[2]
    position_S = torch.arange(k_BKSH.shape[2])
    chunk_S = (position_S - start).div(chunk_len, rounding_mode="floor")
    back_TS = (chunk_S[start:, None] - chunk_S).clamp(0, 2)
    return _one_softmax(queries, k_BKSH, v_BKSH, back_TS, position_S <= position_S[start:, None])


def pieces_averaged(
    queries: Sequence[Tensor], k_BKSH: Tensor, v_BKSH: Tensor, chunk_len: int, merge_pieces: Merge
) -> Tensor:
    """Every piece has a softmax of its own, and the answers are averaged. There is one softmax over
    all keys: merge_pieces weighs the pieces by their lse."""
    return dca_attend(queries, k_BKSH, v_BKSH, chunk_len, averaged)


class _InSteps(DualChunkAttention):
    """The layer's forward pass in steps that a mutant can replace."""

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        if mask is not None:
            raise ValueError("dual chunk attention takes no mask")
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q_BNTH, k_BKSH, v_BKSH = (self.split_heads(proj(x_BTD)) for proj in projections)
        k_BKSH, v_BKSH = self.remember(k_BKSH, v_BKSH, cos, sin, cache, layer)
        if self.trained_length:
            q_BNTH = q_BNTH * self._growth(k_BKSH.shape[2], q_BNTH)
        queries = self.turned(q_BNTH, cos, sin)
        mixed_BNTH = self.attend(queries, k_BKSH, v_BKSH, self.chunk_len, self.merge_pieces)
        return self.o_proj(mixed_BNTH.transpose(1, 2).flatten(-2))

    def remember(
        self, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        k = self.apply_rope(k, cos[0], sin[0])
        return (k, v) if cache is None else cache.update(layer, k, v)

    def turned(self, q_BNTH: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
        return [self.apply_rope(q_BNTH, *tables) for tables in zip(cos, sin, strict=True)]


class KeysAtTheNextPlace(_InSteps):
    """Keys are turned to the successive places. Those are for queries: a key stands at its intra
    place, whoever asks it."""

    def remember(
        self, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        return super().remember(k, v, cos[1:], sin[1:], cache, layer)


class KeysTurnedAgain(_InSteps):
    """Each new token turns all keys in the cache once more, to its own place. A key is turned once,
    when it comes, to its place within its chunk, and stays so."""

    def remember(
        self, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().remember(k, v, cos, sin, cache, layer)
        if k.shape[2] == 1 < keys.shape[2]:
            length = keys.shape[2]
            keys = self.apply_rope(keys, cos[0].expand(length, -1), sin[0].expand(length, -1))
        return keys, values


class OneQueryForAll(_InSteps):
    """All three queries stand at the intra place. Each set of tables makes its own: intra,
    successive and inter."""

    def turned(self, q_BNTH: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
        return [self.apply_rope(q_BNTH, cos[0], sin[0])] * 3


class NeverGrows(DualChunkAttention):
    """The scores don't grow with the length. More keys share the attention of a longer text, and
    with original_max_position_embeddings in the config it is to grow sharper."""

    def _growth(self, length: int, q_BNTH: Tensor) -> Tensor:
        return torch.ones(q_BNTH.shape[2], 1)


class GrowsOnce(DualChunkAttention):
    """Scores grow by the factor itself. They are to grow by its square, as with YaRN, where queries
    and keys both carry it."""

    def _growth(self, length: int, q_BNTH: Tensor) -> Tensor:
        return super()._growth(length, q_BNTH).sqrt()


class GrowsWithTheWhole(DualChunkAttention):
    """Every query gets the factor of the whole text, as in vLLM. Then what an early token says
    depends on how much was read at once, and reading in pieces gives something else: a query counts
    the tokens that it sees."""

    def _growth(self, length: int, q_BNTH: Tensor) -> Tensor:
        return super()._growth(length, q_BNTH)[-1:].expand(q_BNTH.shape[2], 1)


class TakesAnyMask(DualChunkAttention):
    """A mask is taken and not used. Padding moves the borders of the chunks, so that it can't be
    right: raise a ValueError."""

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        return super().forward(x_BTD, cos, sin, None, cache, layer)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "dca_attend": (
        near_for_all,
        far_for_all,
        one_query_for_all,
        far_chunks_forgotten,
        chunk_before_masked,
        own_chunk_whole,
        chunks_from_the_first_query,
        pieces_averaged,
    ),
    "dca": (
        KeysAtTheNextPlace,
        KeysTurnedAgain,
        OneQueryForAll,
        NeverGrows,
        GrowsOnce,
        GrowsWithTheWhole,
        TakesAnyMask,
    ),
}
"""The wrong versions of each part."""
