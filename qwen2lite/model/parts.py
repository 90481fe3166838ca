"""The bill of materials of a Qwen2."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from qwen2lite.model.attention import GroupedQueryAttention, fused_attend
from qwen2lite.model.cache import KVCache
from qwen2lite.model.dca import DualChunkAttention, dca_attend, dca_positions
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.moe import MixtureOfExperts, route
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.pieces import merge_pieces
from qwen2lite.model.rope import apply_rope, rotary_frequencies, rotary_tables
from qwen2lite.model.yarn import yarn


@dataclass(frozen=True)
class Parts:
    """What a Qwen2 is built from. Put your own in place of any: `Parts(apply_rope=my_rope)`.

    A part has the arguments of the one it replaces and, where it holds weights, the checkpoint's
    parameter names.
    """

    norm: Callable[[int, float], nn.Module] = RMSNorm
    rotary_frequencies: Callable[[int, float], torch.Tensor] = rotary_frequencies
    rotary_tables: Callable[..., tuple[torch.Tensor, torch.Tensor]] = rotary_tables
    yarn: Callable[..., tuple[torch.Tensor, float]] = yarn
    apply_rope: Callable[..., torch.Tensor] = apply_rope
    attend: Callable[..., torch.Tensor] = fused_attend
    attention: Callable[..., nn.Module] = GroupedQueryAttention
    dca_positions: Callable[..., tuple[torch.Tensor, ...]] = dca_positions
    dca_attend: Callable[..., torch.Tensor] = dca_attend
    merge_pieces: Callable[..., torch.Tensor] = merge_pieces
    dca: Callable[..., nn.Module] = DualChunkAttention
    mlp: Callable[[int, int], nn.Module] = SwiGLU
    route: Callable[..., tuple[torch.Tensor, torch.Tensor]] = route
    moe: Callable[..., nn.Module] = MixtureOfExperts
    cache: Callable[..., KVCache] = KVCache
