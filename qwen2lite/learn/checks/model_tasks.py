"""What the exercise 31_model asks beside the model: both ends, all parameters, a loader, tokens."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.learn.checks.model import TIED, UNTIED, filled
from qwen2lite.learn.contract import (
    Mistake,
    call,
    require_number,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import model as wrong
from qwen2lite.learn.mutants.model_tasks import MUTANTS
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]
_SIZES: dict[str, Any] = {
    "vocab_size": 10,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
}
_HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
BY_HAND = Qwen2Config(**_SIZES, **_HEADS, tie_word_embeddings=True)
"""A model whose 180 parameters one can count on paper."""
ODD = Qwen2Config(
    vocab_size=13,
    hidden_size=36,
    intermediate_size=7,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=4,
    num_experts=5,
    num_experts_per_tok=2,
    moe_intermediate_size=3,
    shared_expert_intermediate_size=11,
    decoder_sparse_step=2,
)
"""Layers 1 and 3 have experts, the others don't, and a head is as large as it likes."""


def check_embedding_parameters(embedding_parameters: Part) -> Iterator[str]:
    """Both ends by hand, then the five published sizes."""
    name = "embedding_parameters"
    _require(name, embedding_parameters, 40, "10 rows of 4 numbers, tied,", BY_HAND)
    untied = Qwen2Config(**_SIZES, **_HEADS)
    _require(name, embedding_parameters, 80, "10 rows of 4 numbers, not tied,", untied)
    yield "40 where one matrix of 10 · 4 serves both ends, 80 where there are two"

    for size, config in CONFIGS.items():
        both_ends = _on_paper(config).model.embed_tokens.weight.numel()
        wanted = both_ends * (1 if config.tie_word_embeddings else 2)
        _require(name, embedding_parameters, wanted, size, config)
    yield "136,134,656 for the 0.5B, and right for the four others"


def check_count_parameters(count_parameters: Part) -> Iterator[str]:
    """180 by hand, the five published sizes, what is active of the MoE, and an odd model."""
    _require("count_parameters", count_parameters, 180, "the model of the example", BY_HAND)
    yield "180 for the model of the example"

    for size, config in CONFIGS.items():
        _require("count_parameters", count_parameters, _counted(config), size, config)
    yield "all five published sizes, to the last parameter"

    active = 14_249_270_784
    moe = CONFIGS["qwen2-57b-a14b"]
    _require("count_parameters", count_parameters, active, "one token of the 57B", moe, True)
    yield "14,249,270,784 of the 57B work for one token"

    _require("count_parameters", count_parameters, _counted(ODD), "an odd model", ODD)
    idle = 2 * 3 * 3 * 36 * 3  # in two layers three of the five experts, three matrices of 36 · 3
    _require("count_parameters", count_parameters, _counted(ODD) - idle, "its tokens", ODD, True)
    yield "a model with experts in every second layer, and heads of their own size"


def _on_paper(config: Qwen2Config) -> Qwen2:
    # The first operation on the meta device makes PyTorch import for seconds.
    with torch.device("meta"), WithoutInitialising():
        return Qwen2(config)


def _counted(config: Qwen2Config) -> int:
    """What PyTorch counts in a model that is never filled."""
    return sum(weight.numel() for weight in _on_paper(config).parameters())


def check_mended_load(mended_load: Part) -> Iterator[str]:
    """A whole checkpoint, also with a copy of a tied matrix; then a name or a shape that misfits."""
    tensors = _tensors(TIED)
    _require_loaded(mended_load, tensors, "a whole checkpoint")
    yield "every parameter has its tensor, whatever the order"

    with_copy = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    _require_loaded(mended_load, with_copy, "a tied checkpoint with its output matrix")
    yield "a copy of the tied matrix is left out"

    untied = _tensors(UNTIED)
    _require_loaded(mended_load, untied, "an untied checkpoint", UNTIED)
    yield "the output matrix of an untied model is filled"

    yield from _check_refusals(mended_load, tensors)

    name = "lm_head.weight"
    del untied[name]
    what = "of an untied model is missing"
    _require_refused(mended_load, untied, name, what, wrong.output_may_be_missing, UNTIED)
    yield "only a tied model may lack its output matrix"


def _tensors(config: Qwen2Config) -> dict[str, Tensor]:
    """A checkpoint, in another order than the model's."""
    weights = filled(Qwen2, config).named_parameters()
    return {name: weight.detach() for name, weight in sorted(weights, reverse=True)}


def _check_refusals(mended_load: Part, tensors: dict[str, Tensor]) -> Iterator[str]:
    name = "model.layers.1.mlp.gate_proj.weight"
    without = {n: tensor for n, tensor in tensors.items() if n != name}
    _require_refused(mended_load, without, name, "is missing", wrong.what_it_finds)
    yield "a missing tensor is an error that names it"

    extra = "model.layers.0.self_attn.q_norm.weight"
    with_extra = tensors | {extra: torch.ones(16)}
    _require_refused(mended_load, with_extra, extra, "is too much", wrong.silent_about_extras)
    yield "and so is one that has no place"

    short = tensors | {"model.norm.weight": torch.ones(1)}
    what = "has one number in place of 48"
    _require_refused(mended_load, short, "model.norm.weight", what, wrong.filled_by_broadcasting)
    yield "and one of another shape"

    turned = tensors | {name: tensors[name].T}
    what = "is [48, 7] in place of [7, 48]"
    _require_refused(mended_load, turned, name, what, wrong.filled_by_reshaping)
    yield "also where it has as many numbers"


def _require_loaded(
    mended_load: Part, tensors: dict[str, Tensor], what: str, config: Qwen2Config = TIED
) -> None:
    output = wrong.refuses_the_tied if config.tie_word_embeddings else wrong.output_left_out
    try:
        model = call(mended_load, Qwen2(config), dict(tensors))
    except Mistake as mistake:
        refused = "lm_head" in mistake.wrong and "lm_head.weight" in tensors
        reason = told_by(output) if refused else mistake.reason
        raise Mistake(f"With {what}: {mistake.wrong}", reason) from None
    if not isinstance(model, nn.Module):
        raise Mistake(f"mended_load returned a {type(model).__name__}; the model was wanted.")
    for name, weight in model.named_parameters():
        if not same(weight.detach(), tensors[name], 0.0):
            raise Mistake(
                f"With {what}, {name} doesn't hold its tensor afterwards.",
                told_by(output if name == "lm_head.weight" else wrong.one_after_the_other),
            )


def _require_refused(
    mended_load: Part,
    tensors: dict[str, Tensor],
    name: str,
    what: str,
    mutant: Part,
    config: Qwen2Config = TIED,
) -> None:
    try:
        mended_load(Qwen2(config), dict(tensors))
    except ValueError as error:
        if name not in str(error):
            raise Mistake(f"{name} {what}, and the error doesn't name it: {error}") from None
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"{name} {what}: wanted was a ValueError, and it raised {kind}.") from None
    raise Mistake(f"{name} {what}: wanted was a ValueError, and nothing happened.", told_by(mutant))


def check_tokens_that_fit(tokens_that_fit: Part) -> Iterator[str]:
    """By hand, exactly full and one byte short, too little memory, wider heads, and real cards."""
    small, name = CONFIGS["qwen2-0.5b"], "tokens_that_fit"
    million = 1_000_000
    _require(
        name, tokens_that_fit, 10, "2 MB of weights and 122,880 bytes", small, million, 2_122_880
    )
    yield "10 tokens of 12,288 bytes in 122,880 bytes beside the weights"

    _require(name, tokens_that_fit, 9, "one byte less", small, million, 2_122_879)
    # Far smaller: of a few bytes too little, int() of a negative fraction makes 0.
    _require(name, tokens_that_fit, 0, "memory smaller than the weights", small, million, million)
    yield "a token fits whole or not at all, and none where the weights don't"

    wide = dataclasses.replace(small, head_dim=3 * small.head_dim)
    _require(name, tokens_that_fit, 3, "heads three times as wide", wide, million, 2_122_880)
    yield "3 where heads are three times as wide as D / N"

    for size, memory in (("qwen2-7b", 24 * 10**9), ("qwen2-72b", 160 * 10**9)):
        config, count = CONFIGS[size], _counted(CONFIGS[size])
        heads = config.num_key_value_heads * config.head_dim
        wanted = (memory - 2 * count) // (2 * 2 * heads * config.num_hidden_layers)
        what = f"{size} and {memory // 10**9} GB"
        _require(name, tokens_that_fit, wanted, what, config, count, memory)
    yield "the 7B in 24 GB, and the 72B in 160 GB"


def _require(name: str, part: Part, want: int, what: str, *asked: Any) -> None:
    got = call(part, *asked)
    divided = "`/` makes a float, also where nothing is left over; `//` keeps whole numbers."
    require_number(got, name, divided, whole=True)
    if got != want:
        why = usual_reason(MUTANTS[name], got, *asked)
        raise Mistake(f"For {what} it is {want:,}, and yours is {got:,}.", why)
