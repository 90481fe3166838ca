"""What the layer `attention` has to do.

Expected values are by hand, or from one plain sum a query. The sizes all differ, and D is not N · H.
"""

import math
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
from qwen2lite.learn.mutants.gqa import MUTANTS
from qwen2lite.model.attention import attend
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.rope import apply_rope, rotary_frequencies, rotary_tables

Part = Callable[..., Any]

_CONFIG = Qwen2Config(
    vocab_size=7,
    hidden_size=20,
    intermediate_size=5,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=4,
)
_THETA = 100.0
_TOKENS = 9


def check_attention(attention: Part) -> Iterator[str]:
    """Names and shapes, values shared by hand, plain sums, pieces, a mask, the parts it is given."""
    _require_parameters(attention)
    yield "the checkpoint's four matrices; q, k and v with a bias, o without"

    _require_shared_values(attention)
    yield "neighbouring query heads share a value head: 10, 10, 10, 20, 20, 20"

    x_BTD = random_normal(3, _TOKENS, 20, seed=5)
    _require_read(attention, x_BTD, (_TOKENS,), None, "A text of 9 tokens")
    yield "right for a whole text: heads split, turned by their positions, mixed, merged"

    _require_read(attention, x_BTD, (4, 1, 4), None, "The same text, read as 4, 1 and 4 tokens")
    yield "the same when it comes in pieces, with a cache that two layers share"

    mask_TS = torch.ones(_TOKENS, _TOKENS, dtype=torch.bool).tril()
    mask_TS[:, 1] = False
    mask_TS[1, 1] = True
    _require_read(attention, x_BTD, (_TOKENS,), mask_TS, "With a mask that hides token 1")
    _require_read(attention, x_BTD, (4, 1, 4), mask_TS, "With that mask, as 4, 1 and 4 tokens")
    yield "a mask that is given is passed on"

    yield from _check_given_parts(attention)

    leaf = x_BTD.clone().requires_grad_()
    layer = _build(attention, 0)
    leaves = {"its input": leaf}
    leaves |= {name: layer.get_parameter(name) for name in ("q_proj.bias", "o_proj.weight")}
    require_gradient(call(layer, leaf, *_tables(0, _TOKENS), name="attention"), leaves, "attention")
    half = call(
        layer.bfloat16(),
        x_BTD.bfloat16(),
        *(table.bfloat16() for table in _tables(0, _TOKENS)),
        name="attention",
    )
    require_tensor(half, x_BTD.shape, torch.bfloat16, "attention in bfloat16")
    yield "gradients come through, and bfloat16 stays bfloat16"


def _require_parameters(attention: Part) -> None:
    shapes = {"q_proj.weight": [24, 20], "k_proj.weight": [8, 20], "v_proj.weight": [8, 20]}
    shapes |= {"q_proj.bias": [24], "k_proj.bias": [8], "v_proj.bias": [8]}
    shapes |= {"o_proj.weight": [20, 24]}
    layer = call(attention, _CONFIG, apply_rope, attend, name="attention")
    try:
        require_parameters(layer, shapes, "attention")
    except Mistake as mistake:
        known = (m for m in MUTANTS["attention"] if _shapes(m) == _shapes(lambda *_: layer))
        why = next(map(told_by, known), mistake.reason)
        raise Mistake(mistake.wrong, why) from None


def _shapes(attention: Part) -> dict[str, list[int]] | None:
    layer = attention(_CONFIG, apply_rope, attend)
    if not isinstance(layer, nn.Module):
        return None
    return {name: list(weight.shape) for name, weight in layer.state_dict().items()}


def _build(attention: Part, seed: int, *parts: Part) -> nn.Module:
    """The layer with weights that depend on their names and the seed alone."""
    layer = attention(_CONFIG, *(parts or (apply_rope, attend)))
    with torch.no_grad():
        for place, (_, weight) in enumerate(sorted(layer.named_parameters())):
            weight.copy_(0.4 * random_normal(*weight.shape, seed=10 * seed + place))
    return layer


def _tables(start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    return rotary_tables(torch.arange(start, end), rotary_frequencies(4, _THETA))


def _require_shared_values(attention: Part) -> None:
    """One token, whose two value heads are 10 and 20, and an output that adds each head up."""

    def heads_of(part: Part) -> Part:
        def heads(x_BTD: torch.Tensor) -> torch.Tensor:
            layer = part(_CONFIG, apply_rope, attend)
            with torch.no_grad():
                for weight in layer.parameters():
                    weight.zero_()
                layer.v_proj.bias.copy_(torch.tensor([10.0] * 4 + [20.0] * 4))
                for head in range(6):
                    layer.o_proj.weight[head, 4 * head] = 1.0
            return layer(x_BTD, *_tables(0, 1))[..., :6]

        heads.__doc__ = part.__doc__
        return heads

    x_BTD = torch.zeros(1, 1, 20)
    got = call(heads_of(attention), x_BTD, name="attention")
    want = torch.tensor([[[10.0, 10.0, 10.0, 20.0, 20.0, 20.0]]])
    require_tensor(got, [1, 1, 6], torch.float32, "attention")
    if not same(got, want):
        raise Mistake(
            f"Six query heads, value heads of 10 and 20: they read {numbers(got)}, "
            f"and should read {numbers(want)}.",
            usual_reason(map(heads_of, MUTANTS["attention"]), got, x_BTD),
        )


def _read(
    part: Part, x_BTD: torch.Tensor, pieces: tuple[int, ...], mask: torch.Tensor | None
) -> torch.Tensor:
    """What two layers make of a text, with one cache for both where it comes in pieces."""
    layers = [_build(part, seed) for seed in range(2)]
    cache = KVCache(_CONFIG, _TOKENS, len(x_BTD)) if len(pieces) > 1 else None
    updates, start = [], 0
    for piece in x_BTD.split(pieces, dim=1):
        end = start + piece.shape[1]
        rows = None if mask is None else mask[start:end, :end]
        given = (*_tables(start, end), rows, cache)
        both = [layer(piece, *given, n) for n, layer in enumerate(layers)]
        updates.append(torch.stack(both))
        start = end
        if cache is not None:
            cache.length = start
    return torch.cat(updates, dim=2)


def _require_read(
    attention: Part,
    x_BTD: torch.Tensor,
    pieces: tuple[int, ...],
    mask: torch.Tensor | None,
    what: str,
) -> None:
    def read_by(part: Part) -> Part:
        def read(x_BTD: torch.Tensor) -> torch.Tensor:
            return _read(part, x_BTD, pieces, mask)

        read.__doc__ = part.__doc__
        return read

    got = call(read_by(attention), x_BTD, name="attention")
    require_tensor(got, [2, *x_BTD.shape], torch.float32, "two layers of attention")
    seen = torch.ones(_TOKENS, _TOKENS, dtype=torch.bool).tril() if mask is None else mask
    want = torch.stack([_plain_sum(_build(attention, seed), x_BTD, seen) for seed in range(2)])
    if not same(got, want, 1e-4):
        off = (got - want).abs().amax((0, 1, 3)) > 1e-4
        raise Mistake(
            f"{what}: wrong from token {int(off.int().argmax())} on.",
            usual_reason(map(read_by, MUTANTS["attention"]), got, x_BTD),
        )


def _plain_sum(layer: nn.Module, x_BTD: torch.Tensor, seen_TS: torch.Tensor) -> torch.Tensor:
    """The same layer, head by head and query by query."""
    weights = {name: value.detach() for name, value in layer.state_dict().items()}
    q, k, v = (
        x_BTD @ weights[f"{name}_proj.weight"].T + weights[f"{name}_proj.bias"] for name in "qkv"
    )
    heads = []
    for n in range(6):
        mine, shared = slice(4 * n, 4 * n + 4), slice(4 * (n // 3), 4 * (n // 3) + 4)
        turned_q, turned_k = _turned(q[..., mine]), _turned(k[..., shared])
        rows = []
        for t in range(_TOKENS):
            scores = (turned_k * turned_q[:, t : t + 1]).sum(-1) / math.sqrt(4)
            shares = scores.masked_fill(~seen_TS[t], -math.inf).softmax(-1)
            rows.append((shares[..., None] * v[..., shared]).sum(1))
        heads.append(torch.stack(rows, dim=1))
    return torch.cat(heads, dim=-1) @ weights["o_proj.weight"].T


def _turned(head_BTH: torch.Tensor) -> torch.Tensor:
    pairs = torch.complex(*head_BTH.chunk(2, dim=-1))
    angles_TR = torch.arange(_TOKENS)[:, None] * torch.tensor([1.0, _THETA**-0.5])
    turned = pairs * torch.polar(torch.ones_like(angles_TR), angles_TR)
    return torch.cat((turned.real, turned.imag), dim=-1)


def _check_given_parts(attention: Part) -> Iterator[str]:
    """With parts that do something else, the layer does something else."""

    def doubled(x: torch.Tensor, *tables: torch.Tensor) -> torch.Tensor:
        return 2 * x

    # A mean over heads is the same where a layer repeats them itself, which is right too.
    def averaged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> Any:
        return q + k.mean((1, 2), keepdim=True) + v.mean((1, 2), keepdim=True)

    x_BTD = random_normal(3, 5, 20, seed=6)
    got = call(_build(attention, 0, doubled, averaged), x_BTD, *_tables(0, 5), name="attention")
    weights = {name: value.detach() for name, value in _build(attention, 0).state_dict().items()}
    q, k, v = (
        x_BTD @ weights[f"{name}_proj.weight"].T + weights[f"{name}_proj.bias"] for name in "qkv"
    )
    means = (2 * k + v).unflatten(-1, (2, 4)).mean((1, 2)).repeat(1, 6)
    want = (2 * q + means[:, None]) @ weights["o_proj.weight"].T
    if not same(got, want, 1e-4):
        mutants = [_build(mutant, 0, doubled, averaged) for mutant in _of_the_same_shape()]
        why = usual_reason(mutants, got, x_BTD, *_tables(0, 5))
        wrong = "The layer doesn't use the apply_rope and the attend that it was given."
        raise Mistake(wrong, why or "Store both in __init__ and call those.")
    yield "it runs on the apply_rope and the attend that it was given"


def _of_the_same_shape() -> list[Part]:
    wanted = _shapes(MUTANTS["attention"][0])
    return [mutant for mutant in MUTANTS["attention"] if _shapes(mutant) == wanted]
