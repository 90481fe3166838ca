r"""Qwen2 in the form that generates fastest on a CPU: fewer and larger products, and few small steps.

Decoding reads every weight once a token, so it can't be faster than memory; what is around the
products is to take as little time as it can. `infer/products.py` says how they are computed.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from qwen2lite.infer.cpu import without_onednn
from qwen2lite.infer.packed_layers import (
    LastPosition,
    Linear,
    PackedAttention,
    PackedSwiGLU,
    WideEmbedding,
    WideNorm,
)
from qwen2lite.infer.products import NarrowLinear, fastest_linear, fastest_ways
from qwen2lite.model.attention import GroupedQueryAttention
from qwen2lite.model.cache import KVCache
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.qwen2 import Decoder, Qwen2


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
        # In a tuple, for its weights are the same and aren't to be counted twice.
        self._up_to_the_last = (_up_to_the_last(decoder),)

    @property
    def dtype(self) -> torch.dtype:
        """Of the stream."""
        return torch.float32

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of what the products give."""
        return self.lm_head.out_dtype

    def forward(
        self,
        ids_BT: torch.Tensor,
        cache: KVCache | None = None,
        mask: torch.Tensor | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Arguments and result are those of `Qwen2`."""
        self.check_ids(ids_BT)
        with self.around_a_row() if ids_BT.numel() == 1 else nullcontext():
            decoder = self._up_to_the_last[0] if last_only else self.model
            x_BTD = decoder(ids_BT, cache, mask)
            return self.score(x_BTD[:, -1:] if last_only else x_BTD)

    def score(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns logits_BTV."""
        return self.lm_head(x_BTD)


def _pack_layer(linear: Linear, packed: Any, layer: Any) -> None:
    packed.self_attn = PackedAttention(layer.self_attn, linear)
    packed.mlp = PackedSwiGLU(layer.mlp, linear)
    packed.input_layernorm = WideNorm(layer.input_layernorm)
    packed.post_attention_layernorm = WideNorm(layer.post_attention_layernorm)


def _up_to_the_last(decoder: Decoder) -> Decoder:
    """The same modules, whose last layer goes on with the last position alone."""
    *layers, last = decoder.layers
    short = copy(decoder)
    short._modules = {**decoder._modules, "layers": nn.ModuleList([*layers, LastPosition(last)])}
    return short
