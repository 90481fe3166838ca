"""What `experts` and the layer `moe` have to do.

By hand an expert is a number times the square of its input: not linear, as no expert is.
"""

import dataclasses
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
from qwen2lite.learn.mutants.moe import MUTANTS, EveryExpertRuns
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.moe import route

Part = Callable[..., Any]

_CONFIG = Qwen2Config(
    vocab_size=7,
    hidden_size=4,
    intermediate_size=9,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    num_experts=12,
    num_experts_per_tok=3,
    moe_intermediate_size=5,
    shared_expert_intermediate_size=6,
)
_BY_HAND = dataclasses.replace(_CONFIG, hidden_size=2, num_experts=3, num_experts_per_tok=2)


class Square(nn.Module):
    """An expert for doing sums by hand: its number times x². It counts the tokens it is given."""

    def __init__(self, hidden_size: int, width: int):
        super().__init__()
        self.number = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns number · x²."""
        self.seen += x[..., 0].numel()
        return self.number * x * x


def check_experts(experts: Part) -> Iterator[str]:
    """Squares by hand, a rush on the same experts, twelve SwiGLUs against a plain sum."""
    layer = call(experts, _CONFIG, SwiGLU, name="experts")
    require_parameters(layer, _swiglu_shapes([f"{e}." for e in range(12)], 5), "experts")
    yield "twelve experts, under the checkpoint's names 0 … 11"

    made_of: tuple[Any, ...] = (_BY_HAND, Square)
    x_XD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    inputs = (x_XD, torch.tensor([[0.5, 0.25], [0.5, 0.125]]), torch.tensor([[2, 0], [1, 2]]))
    what = "Experts that give 1, 10 and 100 times x², the token [1, 2] or [3, 4]"
    want = torch.tensor([[50.25, 201.0], [157.5, 280.0]])
    _require("experts", experts, made_of, inputs, want, what)
    yield "each token's experts, each with its weight on what it gives, added up"

    crowd = (torch.ones(10, 2), torch.full((10, 2), 0.5), torch.tensor([[0, 2]] * 10))
    what = "Ten tokens [1, 1], which all choose the first and the last of the same experts"
    _require("experts", experts, made_of, crowd, torch.full((10, 2), 50.5), what)
    _require_sparse("experts", _drawn(experts(*made_of)), crowd)
    yield "no token is dropped, and an expert sees no tokens but its own"
    yield from _check_twelve(experts)


def _check_twelve(experts: Part) -> Iterator[str]:
    made_of = (_CONFIG, SwiGLU)
    weights, chosen = route(2 * random_normal(8, 12, seed=4), 3, False)
    leaf = random_normal(8, 4, seed=3).requires_grad_()
    layer = _drawn(experts(*made_of))
    want = _plain_sum(layer.state_dict(), "", leaf.detach(), weights, chosen)
    what = "Twelve SwiGLUs on eight random tokens"
    _require("experts", experts, made_of, (leaf, weights, chosen), want, what)
    got = call(layer, leaf, weights, chosen, name="experts")
    leaves = {"its input": leaf, "an expert": next(layer.parameters())}
    require_gradient(got, leaves, "experts")
    yield "right for twelve experts, and gradients reach them and their input"


def check_moe(moe: Part) -> Iterator[str]:
    """The checkpoint's names, one token by hand, a rush, random ones both ways, bfloat16."""
    layer = call(moe, _CONFIG, SwiGLU, route, name="moe")
    shapes = _swiglu_shapes([f"experts.{e}." for e in range(12)], 5)
    shapes |= _swiglu_shapes(["shared_expert."], 6)
    shapes |= {"gate.weight": [12, 4], "shared_expert_gate.weight": [1, 4]}
    require_parameters(layer, shapes, "moe")
    yield "the checkpoint's names: gate, experts, shared_expert, shared_expert_gate"

    made_of = (_BY_HAND, Square, route)
    x_BTD = torch.tensor([[[2.0, 0.0]]])
    what = (
        "Experts that give 1, 10 and 100 times x², with probabilities 0.1, 0.6 and 0.3 and two in "
        "use, and a shared one that gives 1000 times x² and is open by 3/4: the token [2, 0]"
    )
    _require("moe", moe, made_of, (x_BTD,), torch.tensor([[[3144.0, 0.0]]]), what)
    yield "by hand: 0.6 · 10 · 4 + 0.3 · 100 · 4 + 0.75 · 1000 · 4 = 3144"

    crowd = x_BTD.repeat(4, 5, 1)
    want = torch.tensor([3144.0, 0.0]).repeat(4, 5, 1)
    _require("moe", moe, made_of, (crowd,), want, "The token [2, 0] twenty times over")
    _require_sparse("moe", _drawn(moe(*made_of)), (crowd,))
    yield "no token is dropped, and an expert sees no tokens but its own"

    yield from _check_random(moe)


def _check_random(moe: Part) -> Iterator[str]:
    x_BTD = random_normal(2, 4, 4, seed=3).requires_grad_()
    for norm in (False, True):
        made_of = (dataclasses.replace(_CONFIG, norm_topk_prob=norm), SwiGLU, route)
        want = _plain_layer(_drawn(moe(*made_of)).state_dict(), x_BTD.detach(), norm)
        what = f"Twelve SwiGLUs on eight random tokens, with norm_topk_prob {norm}"
        _require("moe", moe, made_of, (x_BTD,), want, what)
    yield "right for twelve experts, with norm_topk_prob and without"

    layer = _drawn(moe(_CONFIG, SwiGLU, route))
    leaves = {"its input": x_BTD}
    for name in ("gate", "shared_expert_gate"):
        leaves[name] = layer.get_parameter(f"{name}.weight")
    require_gradient(call(layer, x_BTD, name="moe"), leaves, "moe")
    half = call(layer.bfloat16(), x_BTD.detach().bfloat16(), name="moe")
    reason = "The weights that route gives are float32: cast them to the stream's dtype."
    require_tensor(half, [2, 4, 4], torch.bfloat16, "moe in bfloat16", reason)
    yield "gradients reach the input and both gates, and bfloat16 stays bfloat16"


def _require(
    name: str,
    part: Part,
    made_of: tuple[Any, ...],
    inputs: tuple[torch.Tensor, ...],
    want: torch.Tensor,
    what: str,
) -> None:
    """Raises Mistake unless the part answers as wanted; it shows the worst token."""
    got = call(_answering(part, made_of), *inputs, name=name)
    require_tensor(got, want.shape, torch.float32, name)
    if not same(got, want, 1e-4):
        worst = (got - want).abs().amax(-1).flatten().nan_to_num(torch.inf).argmax()
        wanted, had = (numbers(tensor.flatten(0, -2)[worst]) for tensor in (want, got))
        known = [_answering(mutant, made_of) for mutant in MUTANTS[name]]
        raise Mistake(f"{what}: wanted {wanted}, got {had}.", usual_reason(known, got, *inputs))


def _answering(part: Part, made_of: tuple[Any, ...]) -> Part:
    """The part once it is built and has its weights, as a function of its inputs."""

    def answer(*inputs: torch.Tensor) -> Any:
        return _drawn(part(*made_of))(*inputs)

    answer.__doc__ = part.__doc__
    return answer


def _drawn(layer: nn.Module) -> nn.Module:
    """Gives each parameter a value that depends on its name alone."""
    by_hand = {"gate.weight": [0.1, 0.6, 0.3], "shared_expert_gate.weight": [3.0]}
    with torch.no_grad():
        for seed, (name, weight) in enumerate(sorted(layer.named_parameters())):
            if name.endswith("number"):
                digits = [word for word in name.split(".") if word.isdigit()]
                weight.fill_(10.0 ** int(digits[0]) if digits else 1000.0)
            elif name in by_hand and weight.shape[1] == 2:
                # The token [2, 0] gets the logarithm of this as its score.
                weight.copy_(torch.tensor(by_hand[name]).log()[:, None] * torch.tensor([0.5, 0.0]))
            else:
                weight.copy_(0.7 * random_normal(*weight.shape, seed=20 + seed))
    return layer


def _swiglu_shapes(prefixes: list[str], width: int) -> dict[str, list[int]]:
    shapes = {"gate_proj": [width, 4], "up_proj": [width, 4], "down_proj": [4, width]}
    return {f"{p}{name}.weight": shape for p in prefixes for name, shape in shapes.items()}


def _require_sparse(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Raises Mistake where the experts together see more tokens than chose them."""
    call(layer, *inputs, name=name)
    seen = sum(
        expert.seen
        for path, expert in layer.named_modules()
        if isinstance(expert, Square) and "shared" not in path
    )
    choices = 2 * inputs[0].flatten(0, -2).shape[0]
    if seen > choices:
        raise Mistake(
            f"{choices // 2} tokens that use two experts each are {choices} choices, and the experts "
            f"in {name} worked through {seen} tokens.",
            told_by(EveryExpertRuns),
        )


def _plain_sum(
    weights: dict[str, torch.Tensor],
    prefix: str,
    x_XD: torch.Tensor,
    shares: torch.Tensor,
    chosen: torch.Tensor,
) -> torch.Tensor:
    """One token after the other, one expert after the other."""
    rows = []
    for token, x in enumerate(x_XD):
        pairs = zip(shares[token].tolist(), chosen[token].tolist(), strict=True)
        rows.append(sum(share * _swiglu(weights, f"{prefix}{e}.", x) for share, e in pairs))
    return torch.stack(rows)


def _plain_layer(weights: dict[str, torch.Tensor], x_BTD: torch.Tensor, norm: bool) -> torch.Tensor:
    x_XD = x_BTD.flatten(0, 1)
    powers_XE = (x_XD @ weights["gate.weight"].T).exp()
    kept_XE = powers_XE.where(powers_XE >= powers_XE.sort(1).values[:, -3, None], 0.0)
    shares_XE = kept_XE / (kept_XE if norm else powers_XE).sum(1, keepdim=True)
    everyone = torch.arange(12).expand(len(x_XD), 12)
    mixed_XD = _plain_sum(weights, "experts.", x_XD, shares_XE, everyone)
    open_X = 1 / (1 + (-x_XD @ weights["shared_expert_gate.weight"][0]).exp())
    shared_XD = torch.stack([_swiglu(weights, "shared_expert.", x) for x in x_XD])
    return (mixed_XD + open_X[:, None] * shared_XD).view_as(x_BTD)


def _swiglu(weights: dict[str, torch.Tensor], prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate, up = (weights[f"{prefix}{name}_proj.weight"] @ x for name in ("gate", "up"))
    return weights[f"{prefix}down_proj.weight"] @ (gate / (1 + (-gate).exp()) * up)
