"""Wrong versions of the whole model, and of the loader that fills it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import DecoderLayer, Qwen2


def _stream(model: Qwen2, ids_BT: Tensor, cache: KVCache | None, start: int) -> Tensor:
    """x_BTD after the last layer, before the last norm; the cache's length is left as it is."""
    x_BTD = model.model.embed_tokens(ids_BT)
    tables = model.model.tables(torch.arange(start, start + ids_BT.shape[1]))
    cos, sin = (table.to(x_BTD.dtype) for table in tables)
    for layer in model.model.layers:
        x_BTD = layer(x_BTD, cos, sin, None, cache)
    return x_BTD


def _move(cache: KVCache | None, tokens: int) -> int:
    """Moves a cache's length on and returns where it stood."""
    if cache is None:
        return 0
    cache.length += tokens
    return cache.length - tokens


class OutputOfItsOwn(Qwen2):
    """The model has an output matrix of its own, though its embeddings are tied. A tied checkpoint has
    no lm_head.weight to fill it with (QwenLM/Qwen3 #733 asked, lorax #726 refused to load), and random
    numbers in its place make gibberish (sglang #1508)."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(dataclasses.replace(config, tie_word_embeddings=False), parts)


class AlwaysTied(Qwen2):
    """The output matrix is always the embedding. Only the 0.5B and the 1.5B are tied; the others have
    an `lm_head` of their own, which tie_word_embeddings says."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(dataclasses.replace(config, tie_word_embeddings=True), parts)


class NormForgotten(Qwen2):
    """The norm after the last layer is left out. The output matrix has learnt to read normed vectors
    (awslabs/keys_values #139 had it in training and not in inference)."""

    def forward(self, ids_BT: Tensor, cache: KVCache | None = None, *_: Any, **__: Any) -> Tensor:
        x_BTD = _stream(self, ids_BT, cache, cache.length if cache else 0)
        _move(cache, ids_BT.shape[1])
        return self.score(x_BTD)


class PositionsFromZero(Qwen2):
    """Positions start at 0 in every piece. With a cache they start at `cache.length`; else each new
    token believes that it stands at the very beginning (mlx-vlm #1983)."""

    def forward(self, ids_BT: Tensor, cache: KVCache | None = None, *_: Any, **__: Any) -> Tensor:
        x_BTD = _stream(self, ids_BT, cache, 0)
        _move(cache, ids_BT.shape[1])
        return self.score(self.model.norm(x_BTD))


class LengthNotMoved(Qwen2):
    """Nobody moves `cache.length` on, so the next piece is written over the one before. The model does
    it, once, after its last layer."""

    def forward(self, ids_BT: Tensor, cache: KVCache | None = None, *_: Any, **__: Any) -> Tensor:
        x_BTD = _stream(self, ids_BT, cache, cache.length if cache else 0)
        return self.score(self.model.norm(x_BTD))


class EveryLayerTheFirst(Qwen2):
    """Every layer is told that it is layer 0. They then share one place in the cache, and each reads
    the keys of the last one."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, parts)
        for layer in self.model.layers:
            vars(layer)["layer"] = 0


class OneLayerForAll(Qwen2):
    """`[layer] * n` is one layer that stands n times in a list. Each layer has weights of its own: make
    a new one for every number."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, parts)
        self.model.layers = nn.ModuleList([DecoderLayer(config, 0, parts)] * len(self.model.layers))


class LayersInAList(Qwen2):
    """The layers are in a plain list, where PyTorch doesn't look. It runs, but has no weights to load
    and none to train: use nn.ModuleList (pytorch #666; robotics_transformer #3 grew no parameters
    with more layers)."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, parts)
        layers: Any = list(self.model.layers)
        del self.model.layers
        self.model.layers = layers


class FrequenciesAsABuffer(Qwen2):
    """RoPE's frequencies are a buffer, and `model.to(torch.bfloat16)` rounds buffers too: far positions
    blur (transformers #25681, InternLM #237). Keep them as a plain attribute, in float32."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, parts)
        frequencies_R = self.model.frequencies_R
        del self.model.frequencies_R
        self.model.register_buffer("frequencies_R", frequencies_R, persistent=False)


class EpsForgotten(Qwen2):
    """The last norm isn't given the config's rms_norm_eps. It happens to be the usual 1e-6 in most
    sizes, and is 1e-5 in the 72B."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, parts)
        self.model.norm = RMSNorm(config.hidden_size)


class BaseOfItsOwn(Qwen2):
    """RoPE's base is written into the model. It is config.rope_theta, 1,000,000 in Qwen2's checkpoints
    and 10,000 in most of its training."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(dataclasses.replace(config, rope_theta=1e6), parts)


class PartsIgnored(Qwen2):
    """Something is the package's own whatever `parts` holds, and a part of yours in it is never run.
    Take everything from `parts`, and hand `parts` on to each DecoderLayer."""

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__(config, Parts())


def what_it_finds(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A parameter that has no tensor is passed over, and keeps its random numbers. Nothing complains,
    and the model talks nonsense (pytorch/examples #1029, where every name had a prefix too many)."""
    for name, parameter in model.named_parameters():
        if name in tensors:
            parameter.data.copy_(tensors[name])
    return model


def _refuse(names: Any) -> None:
    if names:
        raise ValueError(f"misfits: {sorted(names)}")


def _without_a_mate(model: nn.Module, tensors: dict[str, Tensor]) -> set[str]:
    """Parameters without a tensor and tensors without a parameter, but for a tied model's copy."""
    names = set(dict(model.named_parameters()))
    return names ^ (set(tensors) - ({"lm_head.weight"} - names))


def refuses_the_tied(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A tied checkpoint that stores its output matrix all the same is refused. It is a copy of the
    embedding and can be left out (mlx-examples #564, vllm #3344)."""
    _refuse(set(dict(model.named_parameters())) ^ set(tensors))
    return what_it_finds(model, tensors)


def silent_about_extras(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A tensor that no parameter wants is passed over. It means that the model isn't the one that the
    checkpoint is of: Qwen3's q_norm, for one, has no place in a Qwen2."""
    parameters = dict(model.named_parameters())
    _refuse(set(parameters) - set(tensors))
    _refuse({n for n in parameters if parameters[n].shape != tensors[n].shape})
    return what_it_finds(model, tensors)


def filled_by_broadcasting(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Shapes are not compared. `copy_` broadcasts: a single number fills a whole norm, and a single
    row a whole matrix, without an error."""
    _refuse(_without_a_mate(model, tensors))
    return what_it_finds(model, tensors)


def filled_by_reshaping(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Only the number of numbers is compared. A matrix that lies on its side has as many, and is cut
    into rows that mean nothing: compare `.shape`."""
    _refuse(_without_a_mate(model, tensors))
    parameters = dict(model.named_parameters())
    _refuse({n for n in parameters if parameters[n].numel() != tensors[n].numel()})
    return what_it_finds(model, {n: tensors[n].reshape(parameters[n].shape) for n in parameters})


def output_left_out(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """`lm_head.weight` is left out in any case. That is right where the model is tied and has no such
    parameter; elsewhere its output matrix stays random."""
    kept = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    _refuse(set(dict(model.named_parameters())) - {"lm_head.weight"} ^ set(kept))
    return what_it_finds(model, kept)


def output_may_be_missing(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """`lm_head.weight` may be missing from any checkpoint, and an untied model then keeps a random
    output matrix. Only the other way round it is allowed: a tensor of that name without a parameter."""
    parameters = dict(model.named_parameters())
    _refuse((set(parameters) ^ set(tensors)) - {"lm_head.weight"})
    _refuse({n for n in parameters.keys() & tensors if parameters[n].shape != tensors[n].shape})
    return what_it_finds(model, tensors)


def one_after_the_other(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The tensors are taken in the order in which they come. A checkpoint promises names and no order;
    gate_proj and up_proj have the same shape, and would change places unnoticed."""
    for (_, parameter), tensor in zip(model.named_parameters(), tensors.values(), strict=False):
        if parameter.shape == tensor.shape:
            parameter.data.copy_(tensor)
    return model


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "language_model": (
        OutputOfItsOwn,
        AlwaysTied,
        NormForgotten,
        PositionsFromZero,
        LengthNotMoved,
        EveryLayerTheFirst,
        OneLayerForAll,
        LayersInAList,
        FrequenciesAsABuffer,
        EpsForgotten,
        BaseOfItsOwn,
        PartsIgnored,
    ),
    "mended_load": (
        what_it_finds,
        refuses_the_tied,
        silent_about_extras,
        filled_by_broadcasting,
        filled_by_reshaping,
        output_left_out,
        output_may_be_missing,
        one_after_the_other,
    ),
}
"""The wrong versions of each."""
