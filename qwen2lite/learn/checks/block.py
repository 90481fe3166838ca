"""What a whole layer has to do: `DecoderLayer` of `model/qwen2.py`, for the exercise 26_block."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_gradient,
    require_parameters,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.block import (
    MUTANTS,
    AlwaysTheFirstLayer,
    AlwaysTheSecondLayer,
    CacheForgotten,
    MaskOrCache,
    PartsOfItsOwn,
)
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import DecoderLayer
from qwen2lite.model.rope import rotary_frequencies, rotary_tables

Part = Callable[..., Any]
CONFIG = Qwen2Config(
    vocab_size=11,
    hidden_size=12,
    intermediate_size=7,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    rms_norm_eps=0.5,
)
"""Small, and with an eps that shows where it is forgotten."""


class Halve(nn.Module):
    """A norm that one can follow in the head: half of everything."""

    def __init__(self, *_: Any):
        super().__init__()

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD / 2


class PlusOne(Halve):
    """Attention that answers with what it has read, and one more. It keeps the parts it is given."""

    def __init__(self, config: Any = None, apply_rope: Any = None, attend: Any = None):
        super().__init__()
        self.given = (apply_rope, attend)

    def forward(self, x_BTD: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return x_BTD + 1


class TimesFour(Halve):
    """An MLP that answers with four times what it has read."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD * 4


def other_rope(x: torch.Tensor, *_: Any) -> torch.Tensor:
    """An apply_rope that isn't the package's. It is only handed on, never called."""
    return x


def other_attend(q_BNTH: torch.Tensor, *_: Any) -> torch.Tensor:
    """An attend that isn't the package's. It is only handed on, never called."""
    return q_BNTH


BY_HAND = Parts(
    norm=Halve, attention=PlusOne, mlp=TimesFour, apply_rope=other_rope, attend=other_attend
)


def check_decoder_layer(decoder_layer: Part) -> Iterator[str]:
    """The checkpoint's names, one number by hand, random weights, a mask, a cache, gradients."""
    layer = call(decoder_layer, CONFIG, 1, Parts(), name="decoder_layer")
    reference = random_layer()
    shapes = {name: list(weight.shape) for name, weight in reference.state_dict().items()}
    require_parameters(layer, shapes, "decoder_layer(config, 1, parts)")
    yield "two norms, attention and MLP, under the checkpoint's names"

    _require_by_hand(decoder_layer)
    yield "made of the parts it is given: 4 becomes 4 + 3 = 7, then 7 + 14 = 21"

    layer.load_state_dict(reference.state_dict())
    x_BTD = random_normal(2, 5, 12)
    _require_right(layer, x_BTD, None, "On random weights")
    _require_right(
        layer, x_BTD, torch.ones(5, 5, dtype=torch.bool), "With a mask that hides nothing"
    )
    yield "right on random weights, and with a mask"

    for number in range(2):
        _require_cache(decoder_layer, number)
    yield "hands the cache on, with its own number in it"

    leaf = x_BTD.clone().requires_grad_()
    got = call(layer, leaf, *tables(5), name="the layer")
    norms = {name: layer.get_parameter(name) for name in shapes if "layernorm" in name}
    require_gradient(got, {"its input": leaf, **norms}, "the layer")
    yield "gradients pass"


def random_layer(kind: Part = DecoderLayer, number: int = 1) -> Any:
    """A layer with random weights, the same for every kind of layer; its two norms differ."""
    layer = kind(CONFIG, number, Parts())
    with torch.no_grad():
        for seed, weight in enumerate(layer.parameters()):
            weight.copy_(random_normal(*weight.shape, seed=seed))
    return layer


def tables(count: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """RoPE's cosine and sine for some positions of the small model."""
    positions = torch.arange(start, start + count)
    return rotary_tables(positions, rotary_frequencies(CONFIG.head_dim, CONFIG.rope_theta))


def _require_by_hand(decoder_layer: Part) -> None:
    x_BTD = torch.full((1, 1, 12), 4.0)
    layer = call(decoder_layer, CONFIG, 1, BY_HAND, name="decoder_layer")
    got = call(layer, x_BTD, *tables(1), name="the layer")
    known = [mutant(CONFIG, 1, BY_HAND) for mutant in MUTANTS["decoder_layer"]]
    why = usual_reason(known, got, x_BTD, *tables(1))
    require_tensor(got, [1, 1, 12], torch.float32, "the layer", why)
    if not same(got, torch.full((1, 1, 12), 21.0)):
        raise Mistake(
            "With a norm that halves, attention that adds 1 to what it reads, and an MLP that takes "
            "it four times, the stream goes from 4 to 4 + (2 + 1) = 7 and to 7 + 4 · 3.5 = 21; "
            f"got {numbers(got.flatten()[:1])}.",
            why,
        )
    wanted = (BY_HAND.apply_rope, BY_HAND.attend)
    if layer.self_attn.given != wanted:
        raise Mistake(
            f"Attention is made with {_names(layer.self_attn.given)}; wanted are parts.apply_rope "
            f"and parts.attend, here {_names(wanted)}.",
            told_by(PartsOfItsOwn),
        )


def _names(parts: tuple[Any, ...]) -> str:
    return " and ".join(getattr(part, "__name__", type(part).__name__) for part in parts)


def _require_right(
    layer: nn.Module, x_BTD: torch.Tensor, mask: torch.Tensor | None, what: str
) -> None:
    given = (x_BTD, *tables(x_BTD.shape[1]), mask)
    reference = random_layer()
    got = call(layer, *given, name="the layer")
    known = [random_layer(mutant) for mutant in MUTANTS["decoder_layer"]]
    why = usual_reason(known, got, *given)
    require_tensor(got, x_BTD.shape, torch.float32, "the layer", why)
    copy_BTD = reference.input_layernorm(x_BTD)
    between_BTD = x_BTD + reference.self_attn(copy_BTD, *given[1:])
    want_BTD = between_BTD + reference.mlp(reference.post_attention_layernorm(between_BTD))
    if not same(got, want_BTD, 1e-4):
        raise Mistake(f"{what} the result is wrong.", why)


class _Noting(KVCache):
    """A cache that remembers which layers wrote to it."""

    def __init__(self, *sizes: Any):
        super().__init__(*sizes)
        self.wrote: list[int] = []

    def update(
        self, layer: int, k_BKTH: torch.Tensor, v_BKTH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.wrote.append(layer)
        return super().update(layer, k_BKTH, v_BKTH)


def _require_cache(decoder_layer: Part, number: int) -> None:
    layer = call(decoder_layer, CONFIG, number, Parts(), name="decoder_layer")
    layer.load_state_dict(random_layer().state_dict())
    x_BTD, cache = random_normal(2, 5, 12), _Noting(CONFIG, 5, 2)
    whole_BTD = call(layer, x_BTD, *tables(5), name="the layer")
    call(layer, x_BTD[:, :3], *tables(3), None, cache, name="the layer")
    cache.length = 3
    got = call(layer, x_BTD[:, 3:], *tables(2, 3), None, cache, name="the layer")
    if not cache.wrote:
        raise Mistake("Nothing was written to the cache.", told_by(CacheForgotten))
    if elsewhere := [place for place in cache.wrote if place != number]:
        raise Mistake(
            f"Layer {number} wrote to the place of layer {elsewhere[0]} in the cache.",
            told_by(AlwaysTheFirstLayer if elsewhere[0] == 0 else AlwaysTheSecondLayer),
        )
    if not same(got, whole_BTD[:, 3:], 1e-4):
        raise Mistake("Five tokens in two pieces, with a cache, give something else than at once.")
    _require_mask_and_cache(layer, x_BTD)


def _require_mask_and_cache(layer: nn.Module, x_BTD: torch.Tensor) -> None:
    """The same pieces with a mask that hides the token before the last from the last."""
    mask_TS = torch.ones(5, 5, dtype=torch.bool).tril()
    mask_TS[4, 3] = False
    whole_BTD = call(layer, x_BTD, *tables(5), mask_TS, name="the layer")
    cache = KVCache(CONFIG, 5, 2)
    for start, end in ((0, 3), (3, 5)):
        given = (x_BTD[:, start:end], *tables(end - start, start), mask_TS[start:end, :end])
        got = call(layer, *given, cache, name="the layer")
        cache.length = end
    if not same(got, whole_BTD[:, 3:], 1e-4):
        raise Mistake(
            "Five tokens in two pieces, with a mask and a cache, give something else than at once.",
            told_by(MaskOrCache),
        )
