r"""Qwen2 in the form that generates fastest on a CPU: fewer and larger products, and few small steps.

Decoding reads every weight once a token, so it can't be faster than memory; what is around the
products is to take as little time as it can. `infer/products.py` says how they are computed.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from qwen2lite.infer.cpu import without_onednn
from qwen2lite.infer.products import (
    FEW_ROWS,
    BlockedLinear,
    NarrowLinear,
    TileLinear,
    fastest_linear,
    fastest_ways,
)
from qwen2lite.infer.quantized_products import Int4Linear, Int8Linear
from qwen2lite.model.attention import GroupedQueryAttention
from qwen2lite.model.cache import KVCache
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.qwen2 import Qwen2

Linear = type[TileLinear | NarrowLinear | BlockedLinear | Int8Linear | Int4Linear]


def pack(model: Qwen2, compiled: bool = False) -> Qwen2:
    """The model in the form that generates fastest on this machine.

    Packing takes up to some seconds and as much memory as the model again, until you let go of
    `model`. It serves a model on the CPU in bfloat16 or float16, of the package's own layers and
    without experts. Any other model comes back as it is.

    Args:
        model: to be packed.
        compiled: whether its steps are to be compiled.

    Raises:
        ValueError: a weight that float16 can't hold, where float16 is the faster.
    """
    narrow = model.dtype in (torch.bfloat16, torch.float16)
    if not (narrow and packs_on(model.device) and is_plain(model)):
        return model
    return PackedQwen2(model, fastest_linear(model.dtype, compiled))


def packs_on(device: torch.device) -> bool:
    """Whether packed models run there: on the CPU, where PyTorch has FBGEMM (x86)."""
    return device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


def is_plain(model: Qwen2) -> bool:
    """Whether all layers are the package's own dense ones, which is what can be packed."""
    return all(map(_is_plain, model.model.layers))


def _is_plain(layer: nn.Module) -> bool:
    own = (RMSNorm, GroupedQueryAttention, RMSNorm, SwiGLU)
    names = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
    return all(type(getattr(layer, n)) is kind for n, kind in zip(names, own, strict=True))


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
    ) -> torch.Tensor:
        """Arguments and result are those of `GroupedQueryAttention`."""
        # A product may come column by column; a head's numbers are to lie side by side.
        heads = self.qkv_proj(x_BTD).contiguous().unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        # Queries and keys turn together; the values lie behind them and don't turn.
        turned = self.apply_rope(heads[:, : -self.kv_heads], cos_TH, sin_TH).to(heads.dtype)
        q_BNTH, k_BKSH = turned[:, : -self.kv_heads], turned[:, -self.kv_heads :]
        v_BKSH = heads[:, -self.kv_heads :]
        if cache is not None:
            k_BKSH, v_BKSH = cache.update(layer, k_BKSH, v_BKSH)
        # The cache may be another model's, and wider.
        mixed_BNTH = self.attend(q_BNTH.to(k_BKSH.dtype), k_BKSH, v_BKSH, mask)
        return self.o_proj(mixed_BNTH.transpose(1, 2).flatten(-2))


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


class PackedQwen2(Qwen2):
    """A `Qwen2` for generating on the CPU, made by `pack`.

    The stream is float32. With `TileLinear` the cache is too (24 KiB a token for the 0.5B), and the
    logits are those of the narrow weights computed in float32. With the others what products give and
    what is cached is as narrow as `out_dtype` says.

    Args:
        model: to be packed.
        linear: the class of its products.
    """

    def __init__(self, model: Qwen2, linear: Linear):
        with torch.device("meta"), WithoutInitialising():
            super().__init__(model.config, model.parts)
        decoder, source = self.model, model.model
        decoder.add_module("embed_tokens", WideEmbedding(source.embed_tokens.weight))
        decoder.add_module("norm", WideNorm(source.norm))
        # Asked before the threads do, who would disturb what is tried out.
        vectors = linear is not NarrowLinear or fastest_ways(model.dtype).as_vector
        self.around_a_row = nullcontext if vectors else without_onednn
        # PyTorch packs on one core, and no layer needs another.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            output = pool.submit(linear, model.output_weight_VD)
            packing = pool.map(partial(_pack_layer, linear), decoder.layers, source.layers)
            list(tqdm(packing, "packing", len(source.layers), delay=2, leave=False))
        self.lm_head: Any = output.result()
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the stream."""
        return torch.float32

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of what the products give."""
        return self.lm_head.out_dtype

    def forward(self, ids_BT: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        """Arguments and result are those of `Qwen2`."""
        with self.around_a_row() if ids_BT.numel() == 1 else nullcontext():
            return super().forward(ids_BT, *arguments, **named)

    def score(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns logits_BTV."""
        return self.lm_head(x_BTD)


def _pack_layer(linear: Linear, packed: Any, layer: Any) -> None:
    packed.self_attn = PackedAttention(layer.self_attn, linear)
    packed.mlp = PackedSwiGLU(layer.mlp, linear)
    packed.input_layernorm = WideNorm(layer.input_layernorm)
    packed.post_attention_layernorm = WideNorm(layer.post_attention_layernorm)
