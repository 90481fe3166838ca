"""Wrong answers to the heart of the exercise 90_capstone: the whole network, from ids to logits.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.capstone_reference import Weights, built, logits
from qwen2lite.learn.mutants import mlp, norm
from qwen2lite.model.config import Qwen2Config as Config


def probabilities(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """A softmax has been taken at the end. Logits are wanted: scores as the output matrix gives
    them."""
    return logits(weights, config, ids_T).softmax(-1)


def last_position_only(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """These are the scores of the last position alone. Every position has its own row, and all are
    wanted."""
    return logits(weights, config, ids_T)[-1]


def last_norm_forgotten(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The last norm is missing, model.norm: it stands after all layers, before the output matrix."""
    model = built(weights, config)
    model.model.norm = torch.nn.Identity()
    return _logits(model, ids_T)


def last_norms_eps(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The last norm has another eps than the others. All have that of the config."""
    model: Any = built(weights, config)
    model.model.norm.eps = 1e-6
    return _logits(model, ids_T)


def always_tied(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The scores come from the embedding, though this model isn't tied: where
    `config.tie_word_embeddings` is False, lm_head.weight is a matrix of its own."""
    embedding = weights["model.embed_tokens.weight"]
    return logits({**weights, "lm_head.weight": embedding}, _untied(config), ids_T)


def embedding_scaled(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The embedding is multiplied by √D. Gemma does that; Qwen2 takes the row as it is."""
    name = "model.embed_tokens.weight"
    louder = {"lm_head.weight": weights[name], **weights}
    louder[name] = weights[name] * config.hidden_size**0.5
    return logits(louder, _untied(config), ids_T)


def update_replaces(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """What one half of a layer gives takes the place of the stream. Both give updates, to be added:
    x = x + attention(…), and then x = x + mlp(…)."""

    def layer(one: Any, x_BTD: Tensor, attend: Any) -> Tensor:
        x_BTD = x_BTD + attend(x_BTD)
        return _fed(one, x_BTD) - x_BTD

    return _in_layers(weights, config, ids_T, layer)


def added_to_the_normed(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """Updates are added to what comes out of the norm, because `x = norm(x)` has overwritten the
    stream. The norm is on the branch: x + mlp(norm(x))."""

    def layer(one: Any, x_BTD: Tensor, attend: Any) -> Tensor:
        x_BTD = one.input_layernorm(x_BTD) + attend(x_BTD)
        normed_BTD: Tensor = one.post_attention_layernorm(x_BTD)
        return normed_BTD + one.mlp(normed_BTD)

    return _in_layers(weights, config, ids_T, layer)


def side_by_side(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """Attention and MLP read the same stream, as in GPT-J. In Qwen2 one comes after the other: the MLP
    reads what attention has left."""
    return _in_layers(weights, config, ids_T, lambda one, x, attend: _fed(one, x) + attend(x))


def mlp_first(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The MLP comes before attention. A layer looks around first and thinks then."""

    def layer(one: Any, x_BTD: Tensor, attend: Any) -> Tensor:
        x_BTD = _fed(one, x_BTD)
        return x_BTD + attend(x_BTD)

    return _in_layers(weights, config, ids_T, layer)


def mlp_without_norm(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The MLP reads the stream as it is. Before it stands a norm: post_attention_layernorm."""
    return _in_layers(
        weights, config, ids_T, lambda one, x, attend: (y := x + attend(x)) + one.mlp(y)
    )


def one_norm_for_both(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The MLP's norm has the weight of input_layernorm. A layer has two norms: post_attention_layernorm
    is the MLP's."""
    first = {
        name: weights[name.replace("post_attention", "input")] if "post_att" in name else weight
        for name, weight in weights.items()
    }
    return logits(first, config, ids_T)


def branches_swapped(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """silu is on the wrong branch: it belongs to gate_proj, and up_proj stays as it is."""
    return logits(weights, config, ids_T, mlp=mlp.BranchesSwapped)


def gelu_gate(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The gate's function is GELU. Qwen2 has SiLU: x times sigmoid of x. The two look alike, and a
    model with the wrong one still writes."""
    return logits(weights, config, ids_T, mlp=mlp.GeluGate)


def silu_of_the_product(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """silu is taken of the product of both branches: a bracket in the wrong place. It is taken of the
    gate, and then multiplied."""
    return logits(weights, config, ids_T, mlp=mlp.SiluOfTheProduct)


def up_forgotten(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """up_proj never enters the result: silu(gate) goes straight to down_proj."""
    return logits(weights, config, ids_T, mlp=mlp.NoGate)


def first_layer_again(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """All layers have the weights of layer 0. The number belongs into the name, and it has to
    change."""
    model = built(weights, config)
    for number in range(1, config.num_hidden_layers):
        model.model.layers[number] = model.model.layers[0]
    return _logits(model, ids_T)


def one_layer_short(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The last layer is missing. They are counted from 0: range(config.num_hidden_layers) has them
    all."""
    model = built(weights, config)
    del model.model.layers[-1]
    return _logits(model, ids_T)


def layers_sorted_as_words(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """With more than ten layers they come in the wrong order: sorted as words, "10" stands before "2".
    Count the layers, and don't sort names."""
    model = built(weights, config)
    order = sorted(range(config.num_hidden_layers), key=str)
    layers = [model.model.layers[number] for number in order]
    model.model.layers = torch.nn.ModuleList(layers)
    return _logits(model, ids_T)


def left_in_float32(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """Somewhere float32 has spread: the stream is in the dtype of the weights, and only norms, angles,
    scores and softmax are computed in float32. Cast back after each."""
    return logits({name: weight.float() for name, weight in weights.items()}, config, ids_T)


def squares_rounded(weights: Weights, config: Config, ids_T: Tensor) -> Tensor:
    """The norms compute in the dtype of the weights. In float16 the square of 256 is infinite already,
    and the norm gives 0; in bfloat16 squares have 8 bits. `.float()` first, and back at the end."""
    return logits(weights, config, ids_T, norm=norm.NarrowSquares)


@torch.no_grad()
def _logits(model: Any, ids_T: Tensor) -> Tensor:
    logits_BTV: Tensor = model(ids_T[None])
    return logits_BTV[0]


def _untied(config: Config) -> Config:
    return dataclasses.replace(config, tie_word_embeddings=False)


def _fed(one: Any, x_BTD: Tensor) -> Tensor:
    """The stream after the MLP of one layer."""
    fed_BTD: Tensor = x_BTD + one.mlp(one.post_attention_layernorm(x_BTD))
    return fed_BTD


@torch.no_grad()
def _in_layers(
    weights: Weights, config: Config, ids_T: Tensor, layer: Callable[[Any, Tensor, Any], Tensor]
) -> Tensor:
    """Logits where each layer does `layer(module, x_BTD, what attention adds)`."""
    model: Any = built(weights, config)
    x_BTD = model.model.embed_tokens(ids_T[None])
    cos, sin = (table.to(x_BTD.dtype) for table in model.model.tables(torch.arange(len(ids_T))))
    for one in model.model.layers:
        x_BTD = layer(
            one, x_BTD, lambda x, one=one: one.self_attn(one.input_layernorm(x), cos, sin)
        )
    scored_BTV: Tensor = model.score(model.model.norm(x_BTD))
    return scored_BTV[0]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "qwen2_logits": (
        probabilities, last_position_only, last_norm_forgotten, last_norms_eps, always_tied,
        embedding_scaled, update_replaces, added_to_the_normed, side_by_side,
        mlp_first, mlp_without_norm, one_norm_for_both, branches_swapped, gelu_gate,
        silu_of_the_product, up_forgotten, first_layer_again, one_layer_short,
        layers_sorted_as_words, left_in_float32, squares_rounded,
    ),
}  # fmt: skip
"""The wrong versions of the task."""
