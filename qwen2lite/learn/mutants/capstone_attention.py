"""Wrong answers to the first task of the exercise 90_capstone: what attention adds to the stream.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.learn.checks.capstone_reference import Weights, update
from qwen2lite.learn.mutants import attention, norm, rope
from qwen2lite.model.attention import GroupedQueryAttention, attend
from qwen2lite.model.config import Qwen2Config as Config
from qwen2lite.model.rope import apply_rope


def stream_added(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The stream has been added already. Wanted is the update alone; the whole network adds it, and
    here it would be added twice."""
    return x_TD + update(weights, config, layer, x_TD)


def norm_forgotten(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The stream goes into the projections as it is. In Qwen2 each half of a layer begins with its own
    norm: here input_layernorm."""
    return update(weights, config, layer, x_TD, norm=_NoNorm)


def other_norm(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The norm's weight is that of post_attention_layernorm. That one belongs before the MLP, as its
    name says: after attention. Before attention it is input_layernorm."""
    place = f"model.layers.{layer}."
    other = weights[f"{place}post_attention_layernorm.weight"]
    return update({**weights, f"{place}input_layernorm.weight": other}, config, layer, x_TD)


def first_layers_weights(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """These are the weights of layer 0, whichever layer was asked for: its number belongs into the
    name, f"model.layers.{layer}. …"."""
    return update(weights, config, 0, x_TD)


def biases_forgotten(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The biases are missing. Most models of this kind have none; Qwen2 has them for queries, keys and
    values (q_proj.bias and so on), and none for the output."""
    without = {n: 0 * w if n.endswith("_proj.bias") else w for n, w in weights.items()}
    return update(without, config, layer, x_TD)


def query_matrix_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """q_proj is multiplied the wrong way round. A weight is stored as [outputs, inputs], so it is
    x @ weight.T, or F.linear. This one is square: the wrong way runs, too."""
    return _turned(weights, config, layer, x_TD, "q_proj")


def output_matrix_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """o_proj is multiplied the wrong way round. A weight is stored as [outputs, inputs], so it is
    x @ weight.T, or F.linear. This one is square: the wrong way runs, too."""
    return _turned(weights, config, layer, x_TD, "o_proj")


def _turned(weights: Weights, config: Config, layer: int, x_TD: Tensor, matrix: str) -> Tensor:
    name = f"model.layers.{layer}.self_attn.{matrix}.weight"
    return update({**weights, name: weights[name].T}, config, layer, x_TD)


def heads_cut_across(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Heads are cut out by `view(heads, T, H)`, which mixes tokens: the first head gets the numbers of
    the first tokens. Cut [T, N·H] into [T, N, H] first, and then swap T and N with `transpose`."""
    return update(weights, config, layer, x_TD, attention=_CutAcross)


def heads_laid_wrongly(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """After mixing, [N, T, H] is made [T, N·H] without swapping N and T back, so that a token gets
    pieces of other tokens' heads. First `transpose(0, 1)`, then flatten."""
    return update(weights, config, layer, x_TD, attend=_laid_wrongly)


def neighbours_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """RoPE turns neighbours, (0, 1), (2, 3), …, as its paper does. Qwen2's weights want the two halves:
    the partner of coordinate i is i + H/2."""
    return update(weights, config, layer, x_TD, apply_rope=rope.interleaved)


def turned_backwards(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """RoPE turns the wrong way. The minus goes with the second half: the partner of (a, b) is
    (−b, a)."""
    return update(weights, config, layer, x_TD, apply_rope=rope.turned_backwards)


def not_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """RoPE is missing: neither queries nor keys know where they stand, and "dog bites man" is
    "man bites dog"."""
    return update(weights, config, layer, x_TD, apply_rope=lambda x, cos, sin: x)


def keys_not_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Queries are turned and keys aren't. Only when both are, their product depends on how far apart
    they stand."""
    return update(weights, config, layer, x_TD, attention=_KeysNotTurned)


def values_turned(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Values are turned too. Positions are for comparing: RoPE turns queries and keys, and values say
    what they say wherever they stand."""
    return update(weights, config, layer, x_TD, attention=_ValuesTurned)


def base_written_in(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """RoPE's base is written in the code, 10,000 or 1,000,000. It stands in the config:
    `config.rope_theta`."""
    usual = {10_000.0: 1_000_000.0}.get(config.rope_theta, 10_000.0)
    other = dataclasses.replace(config, rope_theta=usual)
    return update(weights, other, layer, x_TD)


def not_scaled(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Scores aren't divided by √H. A sum of H products grows with H, and the softmax becomes a choice
    of one."""
    scale = config.head_dim**0.5
    return update(weights, config, layer, x_TD, attend=partial(_scaled, scale))


def scaled_by_the_width(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Scores are divided by √D, the width of the stream. A score is a sum of H products, one for each
    number of a head: divide by √H."""
    scale = (config.head_dim / config.hidden_size) ** 0.5
    return update(weights, config, layer, x_TD, attend=partial(_scaled, scale))


def no_mask(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """There is no mask: a token sees those that come after it, which it has to predict."""
    return update(weights, config, layer, x_TD, attend=attention.no_mask)


def sees_the_next(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The mask is off by one: a token sees the next one, which it has to predict. What it may see is
    itself and everything before."""
    return update(weights, config, layer, x_TD, attend=attention.sees_the_next)


def blind_to_itself(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The mask is off by one: a token doesn't see itself, and the first one sees nothing at all, which
    makes NaN. What it may see is itself and everything before."""
    return update(weights, config, layer, x_TD, attend=attention.blind_to_itself)


def heads_in_turn(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Query heads take key heads in turn, 0, 1, 2, 0, 1, 2: that is `repeat`. Neighbours share one,
    0, 0, 1, 1, 2, 2: `repeat_interleave`, or head n reads key head n // (N/K)."""
    return update(weights, config, layer, x_TD, attend=attention.heads_repeated_in_turn)


def eps_written_in(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The norm's eps is written in the code, or missing. It stands in the config:
    `config.rms_norm_eps`; the 72B has another one than the 7B."""
    return update(weights, dataclasses.replace(config, rms_norm_eps=1e-6), layer, x_TD)


def eps_outside(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """The norm's eps is added outside the root. It belongs to the mean of the squares, inside."""
    return update(weights, config, layer, x_TD, norm=norm.EpsOutsideRoot)


def left_in_float32(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Everything is done in float32, and the answer stays so. Go back to the dtype of x_TD after the
    norm and after the softmax: the stream keeps the dtype of the weights."""
    return update({n: w.float() for n, w in weights.items()}, config, layer, x_TD.float())


def positions_rounded(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """RoPE's positions or angles went through bfloat16, which has no 257: far into a text, neighbours
    coincide. Compute angles, cosine and sine in float32, and round these to the dtype of x_TD."""
    return update(weights, config, layer, x_TD, rotary_tables=rope.rounded_positions)


def scores_rounded(weights: Weights, config: Config, layer: int, x_TD: Tensor) -> Tensor:
    """Scores are computed in bfloat16. Qwen2's keys have large biases, so scores are large, and with 8
    bits those that differ become equal. Queries and keys to float32 before their product."""
    return update(weights, config, layer, x_TD, attend=_rounded_attend)


class _NoNorm(nn.Module):
    """Has a norm's weight and never uses it."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD


class _CutAcross(GroupedQueryAttention):
    def split_heads(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, _ = x_BTD.shape
        return x_BTD.reshape(batch, -1, tokens, self.head_dim)


class _KeysNotTurned(GroupedQueryAttention):
    turned = "q"

    def forward(self, x_BTD: Tensor, *tables: Any) -> Tensor:
        cos_TH, sin_TH = tables[:2]
        heads = [self.split_heads(getattr(self, f"{n}_proj")(x_BTD)) for n in "qkv"]
        turned = [
            apply_rope(x_BNTH, cos_TH, sin_TH) if name in self.turned else x_BNTH
            for name, x_BNTH in zip("qkv", heads, strict=True)
        ]
        mixed: Tensor = self.o_proj(attend(*turned).transpose(1, 2).flatten(-2))
        return mixed


class _ValuesTurned(_KeysNotTurned):
    turned = "qkv"


def _laid_wrongly(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Any = None) -> Tensor:
    batch, heads, tokens, size = q_BNTH.shape
    mixed = attend(q_BNTH, k_BKSH, v_BKSH, mask).reshape(batch, tokens, heads, size)
    return mixed.transpose(1, 2)


def _scaled(scale: float, q_BNTH: Tensor, *rest: Tensor) -> Tensor:
    return attend(scale * q_BNTH, *rest)


def _rounded_attend(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Any = None) -> Tensor:
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    scores_BNTS = q_BNTH @ k_BNSH.transpose(-1, -2) * q_BNTH.shape[-1] ** -0.5
    seen_TS = torch.ones(scores_BNTS.shape[-2:], dtype=torch.bool).tril()
    return scores_BNTS.masked_fill(~seen_TS, float("-inf")).softmax(-1) @ v_BNSH


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "attention_update": (
        stream_added, norm_forgotten, other_norm, first_layers_weights, biases_forgotten,
        query_matrix_turned, output_matrix_turned, heads_cut_across, heads_laid_wrongly,
        neighbours_turned, turned_backwards, not_turned, keys_not_turned, values_turned,
        base_written_in, not_scaled, scaled_by_the_width, no_mask, sees_the_next, blind_to_itself,
        heads_in_turn, eps_written_in, eps_outside, left_in_float32, positions_rounded,
        scores_rounded,
    ),
}  # fmt: skip
"""The wrong versions of the task."""
