"""What a whole Qwen2 has to do, for the exercise 31_model, and the loader that fills it."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import model as wrong
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]
TIED = Qwen2Config(
    vocab_size=11,
    hidden_size=48,
    intermediate_size=7,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    rms_norm_eps=0.5,
    tie_word_embeddings=True,
)
"""Small, and with an eps that shows where it is forgotten."""
UNTIED = dataclasses.replace(TIED, tie_word_embeddings=False)
IDS_BT = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 10, 0]])


def check_language_model(language_model: Part) -> Iterator[str]:
    """The checkpoint's names, tied and untied logits, a cache, bfloat16, gradients."""
    for config in (UNTIED, TIED):
        _require_names(call(language_model, config, Parts(), name="language_model"), config)
    yield "the checkpoint's names; an lm_head where the embeddings are not tied, else none"

    for config in (UNTIED, TIED):
        _require_logits(_filled(language_model, config), config)
    yield "right logits on random weights, tied and untied"

    _require_pieces(_filled(language_model, TIED))
    yield "the same for 4 + 2 + 1 tokens with a cache, whose length it moves on"

    _require_after_rounding(language_model)
    yield "RoPE stays exact when the weights are rounded to bfloat16"

    model = _filled(language_model, UNTIED)
    leaves = {name: p for name, p in model.named_parameters() if "layers" not in name}
    require_gradient(call(model, IDS_BT, name="the model"), leaves, "the model")
    yield "gradients reach the embedding, the last norm and the output matrix"


def _filled(language_model: Part, config: Qwen2Config) -> Any:
    """A model with random weights that depend on their names alone."""
    model = call(language_model, config, Parts(), name="language_model")
    with torch.no_grad():
        for seed, (_, weight) in enumerate(sorted(model.named_parameters())):
            weight.copy_(random_normal(*weight.shape, seed=seed) * 0.4)
    return model


def _require_names(model: Any, config: Qwen2Config) -> None:
    if not isinstance(model, nn.Module):
        raise Mistake(f"language_model is a {type(model).__name__}; a torch.nn.Module was wanted.")
    got = {name: list(weight.shape) for name, weight in model.named_parameters()}
    want = {name: list(weight.shape) for name, weight in Qwen2(config).named_parameters()}
    lacks = sorted(name for name, shape in want.items() if got.get(name) != shape)
    extra = sorted(got.keys() - want.keys())
    if not lacks and not extra:
        return
    tied = "tied" if config.tie_word_embeddings else "not tied"
    said = [f"lacks {lacks[0]} {want[lacks[0]]}"] if lacks else []
    said += [f"has {extra[0]} {got[extra[0]]}, which the checkpoint doesn't"] if extra else []
    more = f" ({len(lacks) + len(extra)} misfits in all)" if len(lacks) + len(extra) > 1 else ""
    raise Mistake(
        f"The model whose embeddings are {tied} {' and '.join(said)}{more}.",
        _reason_for_names(set(got), lacks, extra),
    )


def _reason_for_names(got: set[str], lacks: list[str], extra: list[str]) -> str:
    if extra == ["lm_head.weight"]:
        return told_by(wrong.OutputOfItsOwn)
    if lacks == ["lm_head.weight"]:
        return told_by(wrong.AlwaysTied)
    first = [name.startswith("model.layers.0.") for name in got]
    if any(first) and not extra and all("layers.1." in n or "layers.2." in n for n in lacks):
        return told_by(wrong.OneLayerForAll)
    if not any(first) and not extra and all("layers" in name for name in lacks):
        return told_by(wrong.LayersInAList)
    return (
        "Embedding, layers and last norm are called model.embed_tokens, model.layers.0 … and "
        "model.norm: `model` is a module with these three in it, and lm_head stands beside it."
    )


def _require_logits(model: nn.Module, config: Qwen2Config) -> None:
    got = call(model, IDS_BT, name="the model")
    why = usual_reason(_known(config), got, IDS_BT)
    require_tensor(got, [2, 7, 11], torch.float32, "the model", why)
    if not same(got, _filled(Qwen2, config)(IDS_BT), 1e-4):
        tied = "tied" if config.tie_word_embeddings else "untied"
        raise Mistake(f"With {tied} embeddings and random weights the logits are wrong.", why)


def _known(config: Qwen2Config) -> list[Any]:
    return [_filled(mutant, config) for mutant in wrong.MUTANTS["language_model"]]


def _in_pieces(model: Any) -> Part:
    def read(ids_BT: Tensor) -> Tensor:
        cache = KVCache(TIED, 50, len(ids_BT))
        return torch.cat([model(piece, cache) for piece in ids_BT.split((4, 2, 1), dim=1)], dim=1)

    read.__doc__, read.__name__ = model.__doc__, "the model"
    return read


def _require_pieces(model: Any) -> None:
    got = call(_in_pieces(model), IDS_BT, name="the model")
    if not same(got, model(IDS_BT), 1e-4):
        why = usual_reason(map(_in_pieces, _known(TIED)), got, IDS_BT)
        raise Mistake(
            "Seven tokens in pieces of 4, 2 and 1, with a cache, give other logits than at once.",
            why,
        )


def _require_after_rounding(language_model: Part) -> None:
    ids_BT = torch.arange(300)[None] % 11
    rounded = _filled(language_model, TIED).to(torch.bfloat16).float()
    want = _filled(Qwen2, TIED).to(torch.bfloat16).float()(ids_BT)
    if not same(call(rounded, ids_BT, name="the model"), want, 1e-3):
        raise Mistake(
            "After model.to(torch.bfloat16) and back, 300 tokens are not read as they should be.",
            told_by(wrong.FrequenciesAsABuffer),
        )


def check_mended_load(mended_load: Part) -> Iterator[str]:
    """A whole checkpoint, also with a copy of a tied matrix; then a name or a shape that misfits."""
    tensors = {name: weight.detach() for name, weight in _filled(Qwen2, TIED).named_parameters()}
    shuffled = dict(sorted(tensors.items(), reverse=True))
    _require_loaded(mended_load, shuffled, "a whole checkpoint")
    yield "every parameter has its tensor, whatever the order"

    with_copy = shuffled | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    _require_loaded(mended_load, with_copy, "a tied checkpoint with its output matrix")
    yield "a copy of the tied matrix is left out"

    name = "model.layers.1.mlp.gate_proj.weight"
    without = {n: tensor for n, tensor in shuffled.items() if n != name}
    _require_refused(mended_load, without, name, "is missing", wrong.what_it_finds)
    yield "a missing tensor is an error that names it"

    extra = "model.layers.0.self_attn.q_norm.weight"
    with_extra = shuffled | {extra: torch.ones(16)}
    _require_refused(mended_load, with_extra, extra, "is too much", wrong.silent_about_extras)
    yield "and so is one that has no place"

    short = shuffled | {"model.norm.weight": torch.ones(1)}
    what = "has one number in place of 48"
    _require_refused(mended_load, short, "model.norm.weight", what, wrong.filled_by_broadcasting)
    yield "and one of another shape"


def _require_loaded(mended_load: Part, tensors: dict[str, Tensor], what: str) -> None:
    try:
        model = call(mended_load, Qwen2(TIED), dict(tensors))
    except Mistake as mistake:
        refused = "lm_head" in mistake.wrong and "lm_head.weight" in tensors
        reason = told_by(wrong.refuses_the_tied) if refused else mistake.reason
        raise Mistake(f"With {what}: {mistake.wrong}", reason) from None
    if not isinstance(model, nn.Module):
        raise Mistake(f"mended_load returned a {type(model).__name__}; the model was wanted.")
    for name, weight in model.named_parameters():
        if not same(weight.detach(), tensors[name], 0.0):
            raise Mistake(
                f"With {what}, {name} doesn't hold its tensor afterwards.",
                told_by(wrong.one_after_the_other),
            )


def _require_refused(
    mended_load: Part, tensors: dict[str, Tensor], name: str, what: str, mutant: Part
) -> None:
    try:
        mended_load(Qwen2(TIED), dict(tensors))
    except ValueError as error:
        if name not in str(error):
            raise Mistake(f"{name} {what}, and the error doesn't name it: {error}") from None
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"{name} {what}: wanted was a ValueError, and it raised {kind}.") from None
    raise Mistake(f"{name} {what}: wanted was a ValueError, and nothing happened.", told_by(mutant))
