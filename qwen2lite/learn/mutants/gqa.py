"""Wrong versions of the layer `attention`. The docstring of each says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.model.attention import GroupedQueryAttention, attend
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.rope import apply_rope


class _InSteps(GroupedQueryAttention):
    """The layer's forward pass in steps that a mutant can replace."""

    def forward(
        self,
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        q = self.turned(self.q_proj(x_BTD), cos_TH, sin_TH)
        k = self.turned(self.k_proj(x_BTD), cos_TH, sin_TH)
        v = self.value(self.v_proj(x_BTD), cos_TH, sin_TH)
        if cache is not None:
            k, v = self.remember(cache, layer, k, v)
        return self.o_proj(self.merged(self.mix(q, k, v, mask)))

    def turned(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        return self.apply_rope(self.split_heads(x), cos_TH, sin_TH)

    def value(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        return self.split_heads(x)

    def remember(self, cache: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return cache.update(layer, k, v)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(q, k, v, mask)

    def merged(self, mixed_BNTH: Tensor) -> Tensor:
        return mixed_BNTH.transpose(1, 2).flatten(-2)


class HeadsInTurn(_InSteps):
    """Key heads are dealt out in turn: query heads 0, 1, 2, 3 read 0, 1, 0, 1. They are shared by
    neighbours, 0, 0, 1, 1, so repeat_interleave and not repeat (onnx #7274, jax-js #180)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        times = q.shape[1] // k.shape[1]
        return self.attend(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), mask)


class KeyHeadForEveryQuery(_InSteps):
    """Keys and values have N heads. They have only K: k_proj and v_proj are K · H wide, which is
    all that there is to grouped-query attention."""

    def __init__(self, config: Qwen2Config, *parts: Callable[..., Tensor]):
        super().__init__(config, *parts)
        width = config.num_attention_heads * config.head_dim
        self.k_proj = nn.Linear(config.hidden_size, width)
        self.v_proj = nn.Linear(config.hidden_size, width)


class BiasOnTheOutput(_InSteps):
    """o_proj has a bias. Queries, keys and values have one; the output has none (sglang-jax #578,
    levanter #1132)."""

    def __init__(self, config: Qwen2Config, *parts: Callable[..., Tensor]):
        super().__init__(config, *parts)
        width = config.num_attention_heads * config.head_dim
        self.o_proj = nn.Linear(width, config.hidden_size)


class NoBias(_InSteps):
    """Queries, keys and values have no bias. So it is in LLaMA; without its biases Qwen2 babbles
    (ANEForge #253 dropped them while loading)."""

    def __init__(self, config: Qwen2Config, *parts: Callable[..., Tensor]):
        super().__init__(config, *parts)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            projection.register_parameter("bias", None)


class SplitWithoutMoving(_InSteps):
    """The projection is reshaped to [B, N, T, H] at once. Its numbers lie token by token, so a head
    gets whole tokens: cut into [B, T, N, H] first, then transpose (FuxiCTR #30)."""

    def split_heads(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, width = x_BTD.shape
        return x_BTD.reshape(batch, width // self.head_dim, tokens, self.head_dim)


class MergedWithoutMoving(_InSteps):
    """The heads' answers are reshaped to [B, T, N · H] as they lie, head by head, so a token gets
    numbers of other tokens: transpose back first (transformer-from-scratch #6, where training on an
    easy task hid it)."""

    def merged(self, mixed_BNTH: Tensor) -> Tensor:
        batch, _, tokens, _ = mixed_BNTH.shape
        return mixed_BNTH.reshape(batch, tokens, -1)


class ValuesTurned(_InSteps):
    """RoPE turns the values too. It turns queries and keys, whose product is to know the distance;
    a turned value would say something else at each place (a question in mistral-inference #147)."""

    def value(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        return self.apply_rope(self.split_heads(x), cos_TH, sin_TH)


class KeysNotTurned(_InSteps):
    """RoPE turns only the queries. Query and key both turn, each by its own position, or the score
    depends on where the query is and not on how far the key is."""

    def turned(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        heads = self.split_heads(x)
        is_query = heads.shape[1] * self.head_dim == self.q_proj.out_features
        return self.apply_rope(heads, cos_TH, sin_TH) if is_query else heads


class TurnedBeforeTheSplit(_InSteps):
    """RoPE turns the whole projection before it is cut into heads, so that a pair's halves come from
    different heads. Each head is turned by itself: cut first."""

    def turned(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        heads = x.shape[-1] // self.head_dim
        whole = self.apply_rope(x[:, None], cos_TH.repeat(1, heads), sin_TH.repeat(1, heads))
        return self.split_heads(whole[:, 0])


class HeadsTurnedForPositions(_InSteps):
    """RoPE meets the heads before they are moved, in [B, T, N, H], and takes the head's number for
    the position. Positions must be the last dimension but one (open_lm #4, xformers #841)."""

    def turned(self, x: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        heads = x.unflatten(-1, (-1, self.head_dim))
        tables = (table[: heads.shape[2]].expand(heads.shape[2], -1) for table in (cos_TH, sin_TH))
        return self.apply_rope(heads, *tables).transpose(1, 2)


class UnturnedInTheCache(_InSteps):
    """The cache gets the keys before RoPE. Each is to be turned once, by its own position, when it
    comes: turn first, then update the cache."""

    def forward(
        self,
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        q, v = self.turned(self.q_proj(x_BTD), cos_TH, sin_TH), self.split_heads(self.v_proj(x_BTD))
        k = self.split_heads(self.k_proj(x_BTD))
        if cache is not None:
            k, v = cache.update(layer, k, v)
        earlier, new = k.split([k.shape[2] - len(cos_TH), len(cos_TH)], dim=2)
        k = torch.cat((earlier, self.apply_rope(new, cos_TH, sin_TH)), dim=2)
        return self.o_proj(self.merged(self.attend(q, k, v, mask)))


class OnlyTheNewKeys(_InSteps):
    """The cache is filled and its answer not used, so a query sees only the tokens that came with
    it. update returns the keys and values of all positions: attend to those."""

    def remember(self, cache: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cache.update(layer, k, v)
        return k, v


class AlwaysLayerZero(_InSteps):
    """The cache is always updated as layer 0. It has a place for every layer, and the model says
    which one this is; else the layers overwrite each other's keys."""

    def remember(self, cache: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return cache.update(0, k, v)


class MaskNotPassedOn(_InSteps):
    """The mask that the layer was given doesn't reach attend: padded texts then read their padding."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(q, k, v, None)


class MaskOrCache(_InSteps):
    """The mask is handed on only where there is no cache. With a cache it says more than before: a
    batch's padding stays in there, and every new token has to be told."""

    def forward(
        self,
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        seen = mask if cache is None else None
        return super().forward(x_BTD, cos_TH, sin_TH, seen, cache, layer)


class ScaledTwice(_InSteps):
    """The queries are divided by √H, and attend does that again."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(q * self.head_dim**-0.5, k, v, mask)


class PartsOfItsOwn(_InSteps):
    """The layer calls the package's apply_rope and attend, and not those that it was given. Then a
    part of yours would be replaced and never run."""

    def __init__(self, config: Qwen2Config, *parts: Callable[..., Tensor]):
        super().__init__(config, apply_rope, attend)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "attention": (
        HeadsInTurn,
        KeyHeadForEveryQuery,
        BiasOnTheOutput,
        NoBias,
        SplitWithoutMoving,
        MergedWithoutMoving,
        ValuesTurned,
        KeysNotTurned,
        TurnedBeforeTheSplit,
        HeadsTurnedForPositions,
        UnturnedInTheCache,
        OnlyTheNewKeys,
        AlwaysLayerZero,
        # Before the next, which answers alike where this one is found out.
        MaskOrCache,
        MaskNotPassedOn,
        ScaledTwice,
        PartsOfItsOwn,
    )
}
"""The wrong versions of each part."""
