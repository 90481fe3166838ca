"""What the first two tasks of the exercise 90_capstone ask: a whole Qwen2 without the package."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.capstone_reference import (
    DEEP,
    ODD,
    PLAIN,
    SHARED,
    Weights,
    logits,
    random_weights,
    update,
)
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import capstone as wrong
from qwen2lite.learn.mutants import capstone_attention as wrong_attention

Part = Callable[..., Any]
IDS_T = torch.tensor([3, 14, 1, 5, 9, 2, 6])
_TOLERANCE = 1e-4
"""Of numbers up to 10; right answers in another order of operations differ by about 1e-5."""
_AS_GOOD = 2.5
"""How many times the package's own rounding error an answer in bfloat16 may have."""
_KNOWN: dict[str, tuple[Part, tuple[Part, ...]]] = {
    "attention_update": (update, wrong_attention.MUTANTS["attention_update"]),
    "qwen2_logits": (logits, wrong.MUTANTS["qwen2_logits"]),
}
"""What each task is compared with, and its usual mistakes."""


def check_attention_update(attention_update: Part) -> Iterator[str]:
    """One token, one head, several heads and groups, another layer and base, then bfloat16."""
    part, name = attention_update, "attention_update"
    for said, config, tokens, layer in (
        ("a single token: norm, projections, biases, output", PLAIN, 1, 0),
        ("seven tokens, one head: RoPE, scores, mask", PLAIN, 7, 0),
        ("a single token, 6 query heads on 3 key heads", SHARED, 1, 0),
        ("seven tokens of them; base 10,000, eps 0.5, in layer 1", SHARED, 7, 1),
        ("9 query heads on 3 key heads; base 7, eps 0.1, in layer 1", ODD, 7, 1),
    ):
        x_TD = random_normal(tokens, config.hidden_size, seed=5)
        _require(part, name, said, random_weights(config), config, layer, x_TD)
        yield said
    x_TD = random_normal(300, ODD.hidden_size, seed=6).bfloat16()
    _require_as_good(part, name, "", _narrow(random_weights(ODD)), ODD, 0, x_TD)
    yield "300 tokens in bfloat16"
    likely = told_by(wrong_attention.scores_rounded)
    _require_as_good(part, name, likely, _with_large_biases(), _STILL, 0, x_TD[:40])
    yield "scores of thousands in bfloat16, from key biases as large as Qwen2's"


def check_qwen2_logits(qwen2_logits: Part) -> Iterator[str]:
    """Layers that add nothing, MLPs alone, whole models of several shapes, eleven layers, bfloat16."""
    part, name = qwen2_logits, "qwen2_logits"
    untied = dataclasses.replace(ODD, tie_word_embeddings=False)
    ends = "embedding, last norm and output alone"
    for config, silent, said in (
        (SHARED, ("o_proj", "down_proj"), f"{ends} (tied): layers that add nothing"),
        (PLAIN, ("o_proj", "down_proj"), f"{ends} (not tied): layers that add nothing"),
        (SHARED, ("o_proj",), "MLPs without attention"),
        (SHARED, ("down_proj",), "attention without MLPs"),
        (PLAIN, (), "two whole layers of one head, not tied"),
        (SHARED, (), "two of 6 heads on 3, tied"),
        (untied, (), "two of 9 heads on 3, not tied"),
        (DEEP, (), "eleven layers"),
    ):
        _require(part, name, said, _silenced(random_weights(config), *silent), config, IDS_T)
        yield said
    ids_T = torch.arange(40) % SHARED.vocab_size
    _require_as_good(part, name, "", _narrow(random_weights(SHARED)), SHARED, ids_T)
    yield "weights in bfloat16"
    loud, likely = random_weights(PLAIN), told_by(wrong.squares_rounded)
    loud["model.embed_tokens.weight"] *= 1000
    _require_as_good(part, name, likely, _narrow(loud, torch.float16), PLAIN, ids_T)
    yield "weights in float16, and a stream whose squares it doesn't hold"


def _asked(part: Part, name: str, weights: Weights, *rest: Any) -> Any:
    """The answer of a part that gets the weights, and must leave them as they are."""
    given = {key: weight.clone() for key, weight in weights.items()}
    with torch.no_grad():
        got = call(part, given, *rest, name=name)
    if given.keys() != weights.keys():
        raise Mistake(f"{name} added to or took from `weights`, which the caller still needs.")
    changed = [key for key, weight in given.items() if not torch.equal(weight, weights[key])]
    if changed:
        raise Mistake(f"{name} changed {changed[0]}: something works in place; make a new tensor.")
    return got


def _require(part: Part, name: str, said: str, *asked: Any) -> None:
    got = _asked(part, name, *asked)
    reference, known = _KNOWN[name]
    want = reference(*asked)
    if not same(got, want, _TOLERANCE):
        reason = usual_reason(known, got, *asked)
        require_tensor(got, want.shape, want.dtype, name, reason)
        off = _off(got, want)
        how = f"off by {off:.2g} of its size" if off == off else "some of it isn't a number (NaN)"
        raise Mistake(f"Wrong for {said}: {how}.", reason)


def _require_as_good(part: Part, name: str, likely: str, weights: Weights, *rest: Any) -> None:
    """In few bits right answers differ. What counts is the error beside the same weights in float32:
    not much more than the package's own."""
    got = _asked(part, name, weights, *rest)
    reference, known = _KNOWN[name]
    usual = reference(weights, *rest)
    if describe(got) != describe(usual):
        reason = usual_reason(known, got, weights, *rest)
        require_tensor(got, usual.shape, usual.dtype, name, reason)
    wide = {key: weight.float() for key, weight in weights.items()}
    exact = reference(wide, *(x.float() if _is_stream(x) else x for x in rest))
    error, allowed = _off(got, exact), _AS_GOOD * _off(usual, exact)
    if not error <= allowed:
        kind = str(got.dtype).removeprefix("torch.")
        raise Mistake(
            f"In {kind} it is off by {error:.2g} of its size, more than the {allowed:.2g} that "
            "rounding explains.",
            usual_reason(known, got, weights, *rest) or likely,
        )


def _is_stream(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _silenced(weights: Weights, *matrices: str) -> Weights:
    """The same weights, with nothing coming out of some matrices."""
    silent = tuple(f"{matrix}.weight" for matrix in matrices)
    return {name: 0 * w if name.endswith(silent) else w for name, w in weights.items()}


def _narrow(weights: Weights, dtype: torch.dtype = torch.bfloat16) -> Weights:
    return {name: weight.to(dtype) for name, weight in weights.items()}


_STILL = dataclasses.replace(ODD, rope_theta=1e12)
"""The second pair of each head hardly turns, and so its biases add the same to all scores."""


def _with_large_biases() -> Weights:
    """Scores of 2,000 that differ by about 1. The large numbers stand in coordinates of their own, so
    that keys lose nothing when they are rounded; only scores would."""
    weights = random_weights(_STILL)
    for matrix, bias in (("q_proj", 20.0), ("k_proj", 100.0)):
        name = f"model.layers.0.self_attn.{matrix}"
        for pair in (1, 3):
            weights[f"{name}.weight"].unflatten(0, (-1, 4))[:, pair] = 0
            weights[f"{name}.bias"].unflatten(0, (-1, 4))[:, pair] = bias
    return _narrow(weights)


def _off(got: Tensor, want: Tensor) -> float:
    """Root mean square of the difference over that of what was wanted."""
    difference = (got.detach().double() - want.double()).square().mean().sqrt()
    return float(difference / want.double().square().mean().sqrt())
