"""What `dca_attend` and the layer `dca` have to do.

Expected values are by hand, where each key weighs 1, 2 or 3 by its chunk, or from one softmax over a
dense matrix of distances, which the parts themselves must never build.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
from qwen2lite.learn.mutants.dca_attention import MUTANTS, TakesAnyMask
from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.dca import dca_attend, dca_positions
from qwen2lite.model.pieces import merge_pieces
from qwen2lite.model.rope import apply_rope, rotary_frequencies, rotary_tables

Part = Callable[..., Any]
Queries = tuple[torch.Tensor, ...]

_THETA = 100.0


def check_dca_attend(dca_attend: Part) -> Iterator[str]:
    """Shape, weights of 1, 2 and 3 by hand, the last queries alone, one softmax, gradients."""
    queries = tuple(random_normal(2, 6, 7, 4, seed=seed) for seed in range(3))
    inputs = (queries, random_normal(2, 2, 7, 4, seed=3), random_normal(2, 2, 7, 4, seed=4), 3)
    got = call(dca_attend, *inputs, merge_pieces)
    require_tensor(got, [2, 6, 7, 4], torch.float32, "dca_attend")
    yield "an answer for each head of each query"

    # Scores of 0, ln 2 and ln 3: a key weighs 1 in the own chunk, 2 in the one before, 3 further back.
    queries = tuple(torch.full((1, 1, 6, 1), math.log(weight)) for weight in (1, 2, 3))
    values = torch.arange(1.0, 7.0).view(1, 1, 6, 1)
    by_hand = (queries, torch.ones(1, 1, 6, 1), values, 2)
    want = [1.0, 1.5, 9 / 5, 13 / 6, 28 / 11, 34 / 12]
    why = "6 tokens in chunks of 2, values 1 … 6, weights 1, 2 and 3 by how far the chunk is"
    _require_attended(dca_attend, by_hand, want, why)
    yield "own chunk, the one before and those further back are each asked by their own query"

    for last in (1, 3):
        some = (tuple(q[:, :, -last:] for q in queries), *by_hand[1:])
        _require_attended(dca_attend, some, want[-last:], f"The last {last} of the same 6 tokens")
    yield "with a cache the queries are the last ones, and chunks stay where they are"

    _require_one_softmax(dca_attend, inputs)
    leaves = {
        "the intra queries": inputs[0][0].requires_grad_(),
        "the inter queries": inputs[0][2].requires_grad_(),
        "the keys": inputs[1].requires_grad_(),
        "the values": inputs[2].requires_grad_(),
    }
    require_gradient(call(dca_attend, *inputs, merge_pieces), leaves, "dca_attend")
    yield "one softmax over all keys, heads in groups, and gradients reach q, k and v"


def _require_attended(dca_attend: Part, inputs: Any, want: Sequence[float], what: str) -> None:
    got = call(dca_attend, *inputs, merge_pieces)
    require_tensor(got, inputs[0][0].shape, torch.float32, "dca_attend")
    if not same(got.flatten(), torch.tensor(want)):
        raise Mistake(
            f"{what}: wanted {numbers(torch.tensor(want))}, got {numbers(got)}.",
            usual_reason(MUTANTS["dca_attend"], got, *inputs, merge_pieces),
        )


def _require_one_softmax(dca_attend: Part, inputs: Any) -> None:
    queries, k_BKSH, v_BKSH, chunk_len = inputs
    wanted = []
    for t in range(7):
        keys = [queries[min(t // chunk_len - s // chunk_len, 2)][:, :, t] for s in range(t + 1)]
        k, v = (x[:, :, : t + 1].repeat_interleave(3, dim=1) for x in (k_BKSH, v_BKSH))
        weights = ((torch.stack(keys, 2) * k).sum(-1) / math.sqrt(k.shape[-1])).softmax(-1)
        wanted.append((weights[..., None] * v).sum(2))
    got = call(dca_attend, *inputs, merge_pieces)
    if not same(got, torch.stack(wanted, 2)):
        raise Mistake(
            "On random heads, six of queries over two of keys, it is not one softmax over all keys.",
            usual_reason(MUTANTS["dca_attend"], got, *inputs, merge_pieces)
            or "Is each score divided by √H, and does query head n read key head n // (N/K)?",
        )


def check_dca(dca: Part) -> Iterator[str]:
    """The checkpoint's matrices, a dense reference, growing scores, reading in pieces, no mask."""
    layer = _build(dca, 0)
    shapes = {f"{name}_proj.weight": [8, 24] for name in ("k", "v")}
    shapes |= {f"{name}_proj.bias": [size] for name, size in (("q", 24), ("k", 8), ("v", 8))}
    shapes |= {f"{name}_proj.weight": [24, 24] for name in ("q", "o")}
    require_parameters(layer, shapes, "dca")
    yield "the matrices and biases of GroupedQueryAttention, under the checkpoint's names"

    x_BTD = random_normal(2, 11, 24, seed=5)
    what = "11 tokens in chunks of 3"
    _require_read(dca, x_BTD, 0, (11,), what)
    yield "keys at their places within their chunks, each query at three"

    _require_read(dca, x_BTD, 0, (5, 1, 4, 1), f"{what}, read as 5, 1, 4 and 1 with a cache")
    yield "the same when the text comes in pieces: nothing in the cache changes"

    _require_read(dca, x_BTD, 4, (11,), f"{what}, by a model trained on 4 tokens")
    _require_read(dca, x_BTD, 4, (6, 5), f"{what}, read as 6 and 5, by a model trained on 4 tokens")
    yield "scores grow with the tokens that a query sees"

    leaf = x_BTD.clone().requires_grad_()
    output = call(lambda x: _read(layer, x, (11,)), leaf, name="dca")
    require_gradient(output, {"its input": leaf}, "dca")
    mask_TS = torch.ones(11, 11, dtype=torch.bool).tril()
    try:
        layer(x_BTD, *_tables(range(11)), mask_TS)
    except ValueError:
        yield "gradients come through, and a mask is refused"
    else:
        wrong = "dca takes a mask, and should raise a ValueError."
        raise Mistake(wrong, told_by(TakesAnyMask))


def _build(dca: Part, trained_length: int) -> nn.Module:
    """The layer with weights that depend on their names alone."""
    chunks = {"chunk_size": 5, "local_size": 2, "original_max_position_embeddings": trained_length}
    config = _config(chunks)
    layer = call(dca, config, apply_rope, dca_attend, merge_pieces, name="dca")
    if isinstance(layer, nn.Module):
        drawn = sorted(layer.named_parameters())
        with torch.no_grad():
            for seed, (_, weight) in enumerate(drawn):
                weight.copy_(0.4 * random_normal(*weight.shape, seed=10 + seed))
    return layer


def _config(chunks: dict[str, Any]) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=7,
        hidden_size=24,
        intermediate_size=5,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        rope_theta=_THETA,
        dual_chunk_attention_config=chunks,
    )


def _tables(positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the three places, as the model stacks them."""
    frequencies_R = rotary_frequencies(4, _THETA)
    places = dca_positions(torch.tensor(list(positions)), 5, 2)
    tables = [rotary_tables(place_T, frequencies_R) for place_T in places]
    cos, sin = map(torch.stack, zip(*tables, strict=True))
    return cos, sin


def _read(layer: Any, x_BTD: torch.Tensor, pieces: tuple[int, ...]) -> torch.Tensor:
    """The layer's updates for a text that comes in pieces, with a cache where there are several."""
    cache = KVCache(_config({"chunk_size": 5, "local_size": 2}), 11, 2) if len(pieces) > 1 else None
    updates, start = [], 0
    for piece in x_BTD.split(pieces, dim=1):
        end = start + piece.shape[1]
        updates.append(layer(piece, *_tables(range(start, end)), None, cache, 0))
        start = end
        if cache is not None:
            cache.length = end
    return torch.cat(updates, dim=1)


def _require_read(
    dca: Part, x_BTD: torch.Tensor, trained_length: int, pieces: tuple[int, ...], what: str
) -> None:
    def read_by(part: Part) -> Part:
        def read(x_BTD: torch.Tensor) -> torch.Tensor:
            return _read(_build(part, trained_length), x_BTD, pieces)

        read.__doc__ = part.__doc__
        return read

    got = call(read_by(dca), x_BTD, name="dca")
    require_tensor(got, x_BTD.shape, torch.float32, "dca")
    want = _dense(_build(dca, trained_length), x_BTD, trained_length)
    if not same(got, want, 1e-4):
        off = (got - want).abs().amax((0, 2)) > 1e-4
        raise Mistake(
            f"{what}: wrong from token {int(off.int().argmax())} on.",
            usual_reason(map(read_by, MUTANTS["dca"]), got, x_BTD),
        )


def _dense(layer: nn.Module, x_BTD: torch.Tensor, trained_length: int) -> torch.Tensor:
    """The same from the distance of each pair: its query is turned by that, and its key not at all."""
    weights = {name: value.detach() for name, value in layer.state_dict().items()}
    q_BNTH, k_BKTH, v_BKTH = (
        (x_BTD @ weights[f"{one}_proj.weight"].T + weights[f"{one}_proj.bias"])
        .unflatten(-1, (-1, 4))
        .transpose(1, 2)
        for one in "qkv"
    )
    mixed = []
    for t in range(x_BTD.shape[1]):
        growth = max(1.0, 0.1 * math.log((t + 1) / trained_length) + 1) if trained_length else 1.0
        k, v = (x[:, :, : t + 1].repeat_interleave(3, dim=1) for x in (k_BKTH, v_BKTH))
        turned = torch.stack([_turned(q_BNTH[:, :, t], _distance(t, s)) for s in range(t + 1)], 2)
        weights_BNS = ((turned * k).sum(-1) / 2 * growth**2).softmax(-1)
        mixed.append((weights_BNS[..., None] * v).sum(2).flatten(1))
    return torch.stack(mixed, 1) @ weights["o_proj.weight"].T


def _distance(query: int, key: int) -> int:
    chunks_back = query // 3 - key // 3
    place = (query % 3, min(3 + query % 3, 5), 5)[min(chunks_back, 2)]
    return place - key % 3


def _turned(q_BNH: torch.Tensor, distance: int) -> torch.Tensor:
    pairs = torch.complex(*q_BNH.double().chunk(2, dim=-1))
    angles = torch.tensor([distance * _THETA ** (-pair / 2) for pair in range(2)]).double()
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).float()
