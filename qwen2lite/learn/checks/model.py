"""What a whole Qwen2 has to do, for the exercise 31_model."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
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
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.model.rope import rotary_frequencies, rotary_tables

Part = Callable[..., Any]
TIED = Qwen2Config(
    vocab_size=11,
    hidden_size=48,
    intermediate_size=7,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=8,
    rms_norm_eps=0.5,
    rope_theta=100.0,
    tie_word_embeddings=True,
)
"""Small, its heads aren't D / N wide, and its eps and base show where they are forgotten."""
UNTIED = dataclasses.replace(TIED, tie_word_embeddings=False)
IDS_BT = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 10, 0]])


def check_language_model(language_model: Part) -> Iterator[str]:
    """The checkpoint's names, tied and untied logits, a cache, bfloat16, gradients, its parts."""
    for config in (UNTIED, TIED):
        _require_names(call(language_model, config, Parts(), name="language_model"), config)
    yield "the checkpoint's names; an lm_head where the embeddings are not tied, else none"

    for config in (UNTIED, TIED):
        _require_logits(filled(language_model, config), config)
    yield "right logits on random weights, tied and untied"

    _require_pieces(filled(language_model, TIED))
    yield "the same for 4 + 2 + 1 tokens with a cache, whose length it moves on"

    _require_after_rounding(language_model)
    yield "RoPE stays exact when the weights are rounded to bfloat16"

    model = filled(language_model, UNTIED)
    leaves = {name: p for name, p in model.named_parameters() if "layers" not in name}
    require_gradient(call(model, IDS_BT, name="the model"), leaves, "the model")
    yield "gradients reach the embedding, the last norm and the output matrix"

    _require_its_parts(language_model)
    yield "norm, frequencies, tables and what is in the layers come from `parts`"


def filled(language_model: Part, config: Qwen2Config, parts: Parts | None = None) -> Any:
    """A model with random weights that depend on their names alone."""
    model = call(language_model, config, parts or Parts(), name="language_model")
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
    if not same(got, filled(Qwen2, config)(IDS_BT), 1e-4):
        tied = "tied" if config.tie_word_embeddings else "untied"
        raise Mistake(f"With {tied} embeddings and random weights the logits are wrong.", why)


def _known(config: Qwen2Config) -> list[Any]:
    return [filled(mutant, config) for mutant in wrong.MUTANTS["language_model"]]


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
    rounded = filled(language_model, TIED).to(torch.bfloat16).float()
    want = filled(Qwen2, TIED).to(torch.bfloat16).float()(ids_BT)
    if not same(call(rounded, ids_BT, name="the model"), want, 1e-3):
        raise Mistake(
            "After model.to(torch.bfloat16) and back, 300 tokens are not read as they should be.",
            told_by(wrong.FrequenciesAsABuffer),
        )


class _Larger(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * super().forward(x)


_MARKED: dict[str, Any] = {
    "norm": _Larger,
    "rotary_frequencies": lambda *given: 2 * rotary_frequencies(*given),
    "rotary_tables": lambda positions_T, *given: rotary_tables(2 * positions_T, *given),
    "apply_rope": lambda x, cos, sin: x,
}
"""Parts of which each makes other logits. The model uses three, and hands the last on to its layers."""


def _require_its_parts(language_model: Part) -> None:
    for name, marked in _MARKED.items():
        parts = dataclasses.replace(Parts(), **{name: marked})
        got = call(filled(language_model, TIED, parts), IDS_BT, name="the model")
        want = filled(Qwen2, TIED, parts)(IDS_BT)
        if not same(got, want, 1e-4):
            raise Mistake(
                f"With another `{name}` in `parts` the last logits should begin "
                f"{numbers(want[0, -1, :3])}, and begin {numbers(got[0, -1, :3])}.",
                told_by(wrong.PartsIgnored),
            )
