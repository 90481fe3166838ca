"""What the exercise 90_capstone is compared with: the package's network, run from plain tensors."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import random_normal
from qwen2lite.model.attention import attend
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2

Weights = dict[str, Tensor]

PLAIN = Qwen2Config(
    vocab_size=23,
    hidden_size=12,
    intermediate_size=10,
    num_hidden_layers=2,
    num_attention_heads=1,
    num_key_value_heads=1,
)
"""One head, so that nothing is shared: what goes wrong here is no matter of groups."""
SHARED = dataclasses.replace(
    PLAIN,
    hidden_size=36,
    head_dim=0,
    num_attention_heads=6,
    num_key_value_heads=3,
    rope_theta=10_000.0,
    rms_norm_eps=0.5,
    tie_word_embeddings=True,
)
"""Two query heads share a key head, the vocabulary is tied, and eps is so large that it shows."""
ODD = dataclasses.replace(
    SHARED, head_dim=0, num_attention_heads=9, rope_theta=7.0, rms_norm_eps=0.1
)
"""Three query heads share a key head, and no size of it is a power of 2."""
DEEP = dataclasses.replace(PLAIN, hidden_size=8, head_dim=0, num_hidden_layers=11)
"""Layer 10 comes after layer 9; among words, "10" comes before "2"."""


def random_weights(config: Qwen2Config, seed: int = 0) -> Weights:
    """Random weights under the checkpoint's names; no two norms and no two biases are alike."""
    shapes = {name: p.shape for name, p in _empty(config, Parts()).named_parameters()}
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        weights[name] = random_normal(*shape, seed=100 * seed + number) * 0.4
        if "norm" in name:
            weights[name] += 1
    return weights


def built(weights: Weights, config: Qwen2Config, parts: Parts | None = None) -> Qwen2:
    """The package's model around these very tensors.

    Args:
        weights: under the checkpoint's names, all of one dtype.
        config: their shape.
        parts: None is the package's own, with attention written as its formula.
    """
    model = _empty(config, parts or Parts(attend=attend))
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _empty(config: Qwen2Config, parts: Parts) -> Qwen2:
    """A model before it gets its weights; the learner's random numbers aren't used up for it."""
    with torch.random.fork_rng(devices=[]):
        return Qwen2(config, parts)


@torch.no_grad()
def logits(weights: Weights, config: Qwen2Config, ids_T: Tensor, **parts: Any) -> Tensor:
    """logits_TV of one text."""
    logits_BTV: Tensor = built(weights, config, Parts(**{"attend": attend, **parts}))(ids_T[None])
    return logits_BTV[0]


@torch.no_grad()
def update(weights: Weights, config: Qwen2Config, layer: int, x_TD: Tensor, **parts: Any) -> Tensor:
    """What attention adds to the stream of one text in one layer."""
    decoder = built(weights, config, Parts(**{"attend": attend, **parts})).model
    positions_T = torch.arange(len(x_TD))
    cos, sin = (table.to(x_TD.dtype) for table in decoder.tables(positions_T))
    module: Any = decoder.layers[layer]
    update_BTD: Tensor = module.self_attn(module.input_layernorm(x_TD[None]), cos, sin)
    return update_BTD[0]
