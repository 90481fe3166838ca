"""Wrong versions of a whole layer. The docstring says what the mistake was."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.attention import fused_attend
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import DecoderLayer
from qwen2lite.model.rope import apply_rope


class UpdatesNotAdded(DecoderLayer):
    """The updates take the stream's place, because nothing is added: `x = x + update`. Whatever a layer
    doesn't write again is lost, and after a few layers all tokens are alike."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = self.self_attn(normed_BTD, cos, sin, mask, cache, self.layer)
        return self.mlp(self.post_attention_layernorm(x_BTD))


class AddedToTheCopy(DecoderLayer):
    """The update is added to the normed copy, because the copy has taken the stream's name. Only
    attention and the MLP read the copy; the sum is with the stream itself (pytorch #61165, in its
    own TransformerEncoderLayer; RiNALMo #9)."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        x_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.self_attn(x_BTD, cos, sin, mask, cache, self.layer)
        x_BTD = self.post_attention_layernorm(x_BTD)
        return x_BTD + self.mlp(x_BTD)


class NormAfter(DecoderLayer):
    """The norm comes after the sum: post-norm, the order of the first transformer. Qwen2 has
    pre-norm, where only the copy that attention or the MLP reads is normed (keras-io #1256 is the
    reverse)."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        update_BTD = self.self_attn(x_BTD, cos, sin, mask, cache, self.layer)
        x_BTD = self.input_layernorm(x_BTD + update_BTD)
        return self.post_attention_layernorm(x_BTD + self.mlp(x_BTD))


class OneNormTwice(DecoderLayer):
    """The MLP reads through input_layernorm, attention's norm. It has its own,
    post_attention_layernorm, with other weights (Megatron-Bridge #4201 gave a Gemma's MLP the wrong
    one of its norms)."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.self_attn(normed_BTD, cos, sin, mask, cache, self.layer)
        return x_BTD + self.mlp(self.input_layernorm(x_BTD))


class AttentionForgotten(DecoderLayer):
    """The MLP's update is added to the stream from before attention, so attention's own update is
    lost. The second sum starts from the result of the first (transformer-tensorflow2.0 #14)."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        update_BTD = self.self_attn(normed_BTD, cos, sin, mask, cache, self.layer)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD + update_BTD))


class SideBySide(DecoderLayer):
    """The MLP reads the stream from before attention, so the two work side by side. PaLM does so (arXiv
    2204.02311, section 2). In Qwen2 the MLP already sees what attention has added."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        update_BTD = self.self_attn(normed_BTD, cos, sin, mask, cache, self.layer)
        return x_BTD + update_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class MaskForgotten(DecoderLayer):
    """The mask is not handed on to attention, which then takes the causal one."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        return super().forward(x_BTD, cos, sin, None, cache)


class CacheForgotten(DecoderLayer):
    """The cache is not handed on to attention, so a token that comes later sees no earlier one."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        return super().forward(x_BTD, cos, sin, mask)


class AlwaysTheFirstLayer(DecoderLayer):
    """The layer's number is not handed on to attention, so all layers write to the first layer's
    place in the cache, one over the other."""

    def __init__(self, config: Qwen2Config, layer: int, parts: Parts):
        super().__init__(config, layer, parts)
        self.layer = 0


class AlwaysTheSecondLayer(DecoderLayer):
    """Attention gets another number than the layer was made with: one that is written in the code, or
    counted from 1. Then two layers meet at one place in the cache, or a place is missing. Keep the
    number in __init__ and hand on that one."""

    def __init__(self, config: Qwen2Config, layer: int, parts: Parts):
        super().__init__(config, layer, parts)
        self.layer = 1


class PartsOfItsOwn(DecoderLayer):
    """Attention doesn't get the apply_rope and the attend of `parts`, in this order, but others, such
    as the package's. Then a part of yours is put into `parts` and never runs: give it
    parts.apply_rope and parts.attend."""

    def __init__(self, config: Qwen2Config, layer: int, parts: Parts):
        own = dataclasses.replace(parts, apply_rope=apply_rope, attend=fused_attend)
        super().__init__(config, layer, own)


class MaskOrCache(DecoderLayer):
    """The mask is handed on only where there is no cache. With a cache it says more than before: a
    batch's padding stays in there, and every new token has to be told."""

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        return super().forward(x_BTD, cos, sin, mask if cache is None else None, cache)


class EpsForgotten(DecoderLayer):
    """The norms don't get the config's rms_norm_eps. It is 1e-5 in the 72B and 1e-6 in the others."""

    def __init__(self, config: Qwen2Config, layer: int, parts: Parts):
        super().__init__(dataclasses.replace(config, rms_norm_eps=1e-6), layer, parts)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "decoder_layer": (
        UpdatesNotAdded,
        AddedToTheCopy,
        NormAfter,
        OneNormTwice,
        AttentionForgotten,
        SideBySide,
        MaskForgotten,
        CacheForgotten,
        AlwaysTheFirstLayer,
        AlwaysTheSecondLayer,
        MaskOrCache,
        PartsOfItsOwn,
        EpsForgotten,
    )
}
"""The wrong versions of a layer."""
