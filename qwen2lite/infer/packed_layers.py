"""What a packed model is made of: `infer/packed`.

A token's operations take longer to start than to run, so they are few.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.infer.products import FEW_ROWS, BlockedLinear, NarrowLinear, TileLinear
from qwen2lite.infer.quantized_products import Int4Linear, Int8Linear
from qwen2lite.model.attention import GroupedQueryAttention
from qwen2lite.model.cache import KVCache
from qwen2lite.model.mlp import SwiGLU

Linear = type[TileLinear | NarrowLinear | BlockedLinear | Int8Linear | Int4Linear]


class PackedAttention(nn.Module):
    """A `GroupedQueryAttention` whose queries, keys and values are one product."""

    def __init__(self, attention: GroupedQueryAttention, linear: Linear):
        super().__init__()
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv_proj = linear(
            *(p.weight for p in projections), biases=tuple(p.bias for p in projections)
        )
        self.o_proj = linear(attention.o_proj.weight)
        self.head_dim = attention.head_dim
        self.kv_heads = attention.k_proj.out_features // attention.head_dim
        self.apply_rope, self.attend = attention.apply_rope, attention.attend

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos_TH: torch.Tensor,
        sin_TH: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Arguments and result are those of `GroupedQueryAttention`; or of the last position alone."""
        # A product may come column by column; a head's numbers are to lie side by side.
        heads = self.qkv_proj(x_BTD).contiguous().unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        # Queries and keys turn together; the values lie behind them and don't turn.
        turned = self.apply_rope(heads[:, : -self.kv_heads], cos_TH, sin_TH).to(heads.dtype)
        q_BNTH, k_BKSH = turned[:, : -self.kv_heads], turned[:, -self.kv_heads :]
        v_BKSH = heads[:, -self.kv_heads :]
        if cache is not None:
            k_BKSH, v_BKSH = cache.update(layer, k_BKSH, v_BKSH)
        q = q_BNTH[:, :, -1:] if last_only else q_BNTH
        if last_only and mask is not None:
            mask = mask[..., -1:, :]
        # The cache may be another model's, and wider.
        mixed = self.attend(q.to(k_BKSH.dtype), k_BKSH, v_BKSH, mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2))


class PackedSwiGLU(nn.Module):
    """A `SwiGLU` whose gate and up projections are one product."""

    def __init__(self, mlp: SwiGLU, linear: Linear):
        super().__init__()
        self.rows_at_once = FEW_ROWS if linear in (NarrowLinear, BlockedLinear) else None
        self.gate_up_proj = linear(mlp.gate_proj.weight, mlp.up_proj.weight)
        self.down_proj = linear(mlp.down_proj.weight)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D]."""
        rows = x_BTD.flatten(0, -2)
        if self.rows_at_once is None or len(rows) <= self.rows_at_once:
            return self._update(x_BTD)
        # Gate and up of a long prompt take memory that the system has to clear first. Pieces of it
        # stay in the processor's cache: 2,048 tokens are read in three quarters of the time.
        updates = [self._update(piece) for piece in rows.split(self.rows_at_once)]
        return torch.cat(updates).view(*x_BTD.shape[:-1], -1)

    def _update(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate).mul_(up))


class LastPosition(nn.Module):
    """The last layer where nobody asks but for the last position: the others leave keys and values,
    and go no further. Of 24 layers' work on a prompt that spares nearly one."""

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        """Returns the stream after the layer at the last position, as often as there are positions."""
        layer = self.layer
        about = (cos, sin, mask, cache, layer.layer)
        update = layer.self_attn(layer.input_layernorm(x_BTD), *about, last_only=True)
        last = x_BTD[:, -1:] + update
        return (last + layer.mlp(layer.post_attention_layernorm(last))).expand_as(x_BTD)


class WideEmbedding(nn.Module):
    """Rows of a narrow matrix, widened to float32 when they are looked up."""

    def __init__(self, weight_VD: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight_VD.detach(), requires_grad=False)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Returns x_BTD in float32."""
        return F.embedding(ids_BT, self.weight).float()


class WideNorm(nn.Module):
    """An `RMSNorm` of a float32 stream, in fewer and smaller steps: one token's take longer to start
    than to run."""

    def __init__(self, norm: Any):
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().float(), requires_grad=False)
        self.eps = torch.tensor(norm.eps)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the normalised tensor, in float32."""
        length = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True)
        mean_square = torch.addcmul(self.eps, length, length, value=1 / x_BTD.shape[-1])
        return (x_BTD * mean_square.rsqrt_()).mul_(self.weight)
