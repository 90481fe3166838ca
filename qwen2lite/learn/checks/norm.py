"""What the part of `model/norm.py` has to do. Expected values are by hand."""

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
    usual_reason,
)
from qwen2lite.learn.mutants.norm import MUTANTS


def check_norm(norm: Callable[..., Any]) -> Iterator[str]:
    """One weight, the root mean square by hand, eps inside the root, the casts in their order."""
    layer = call(norm, 6, 1e-6, name="norm")
    require_parameters(layer, {"weight": [6]}, "norm(6, 1e-6)")
    if not same(layer.weight, torch.ones(6)):
        raise Mistake("The weight doesn't start as ones.", "A new norm only normalises.")
    yield "one parameter, weight, that starts as ones"

    # The mean square of (1, 7) is 25, with eps 11 it is 36: roots of 5 and 6.
    _require(norm, 0.0, [1.0, 7.0], [0.2, 1.4], "The root mean square of [1, 7] is 5")
    _require(norm, 11.0, [1.0, 7.0], [1 / 6, 7 / 6], "With eps = 11, [1, 7] is divided by √36")
    _require(norm, 1e-6, [0.0, 0.0], [0.0, 0.0], "Zeros stay zeros")
    yield "[1, 7] is divided by its root mean square, 5; by 6 where eps is 11"

    layer = _layer(norm, 6, 1e-6, weight=torch.arange(1.0, 7.0))
    x_BTD = random_normal(2, 3, 6)
    leaf = x_BTD.clone().requires_grad_()
    got = call(layer, leaf, name="norm")
    root = x_BTD.double().square().mean(-1, keepdim=True).sqrt()
    if not same(got, (x_BTD / root * torch.arange(1.0, 7.0)).float(), tolerance=1e-4):
        raise Mistake(
            "With a weight of 1, 2, … 6 the result is wrong.",
            _why(got, x_BTD, 1e-6, torch.arange(1.0, 7.0))
            or "Each coordinate of the normalised vector is multiplied by its own weight.",
        )
    require_gradient(got, {"its input": leaf, "weight": layer.get_parameter("weight")}, "norm")
    yield "every coordinate has its own weight, and gradients pass"

    _require_wide_squares(norm)
    _require_cast_before_weight(norm)
    yield "squares in float32; rounded first, then multiplied by the weight"


def _require_wide_squares(norm: Callable[..., Any]) -> None:
    big_BTD = torch.tensor([[[300.0, 300.0, 300.0, -300.0]]]).half()
    got = call(_layer(norm, 4, 1e-6, torch.ones(4).half()), big_BTD, name="norm")
    require_tensor(got, [1, 1, 4], torch.float16, "norm of a float16 tensor")
    if not same(got, big_BTD / 300, tolerance=1e-3):
        raise Mistake(
            f"In float16, [300, 300, 300, -300] became {numbers(got)}, not [1, 1, 1, -1].",
            _why(got, big_BTD, 1e-6, torch.ones(4).half()),
        )


def _require_cast_before_weight(norm: Callable[..., Any]) -> None:
    x_BTD, weight = random_normal(3, 5, 8).bfloat16(), random_normal(8, seed=1).bfloat16()
    got = call(_layer(norm, 8, 1e-6, weight), x_BTD, name="norm")
    wide_BTD = x_BTD.float()
    rounded = wide_BTD / (wide_BTD.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    want = weight * rounded.bfloat16()
    require_tensor(got, want.shape, torch.bfloat16, "norm of a bfloat16 tensor")
    # Two right orders of a float32 sum may round one number apart, the wrong order many.
    if (got != want).sum() > 4:
        raise Mistake(
            f"In bfloat16 {int((got != want).sum())} of {want.numel()} are rounded wrongly.",
            _why(got, x_BTD, 1e-6, weight),
        )


def _layer(norm: Callable[..., Any], size: int, eps: float, weight: torch.Tensor) -> nn.Module:
    layer = norm(size, eps)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def _why(got: torch.Tensor, x_BTD: torch.Tensor, eps: float, weight: torch.Tensor) -> str:
    def answering(mutant: Callable[..., Any]) -> Callable[..., Any]:
        def answer(x_BTD: torch.Tensor) -> torch.Tensor:
            return _layer(mutant, len(weight), eps, weight)(x_BTD)

        answer.__doc__ = mutant.__doc__
        return answer

    return usual_reason(map(answering, MUTANTS["norm"]), got, x_BTD)


def _require(
    norm: Callable[..., Any], eps: float, x: list[float], want: list[float], what: str
) -> None:
    x_BTD = torch.tensor(x).view(1, 1, -1)
    got = call(norm(len(x), eps), x_BTD, name="norm")
    require_tensor(got, x_BTD.shape, torch.float32, "norm")
    if not same(got.flatten(), torch.tensor(want)):
        raise Mistake(
            f"{what}: wanted {numbers(torch.tensor(want))}, got {numbers(got)}.",
            _why(got, x_BTD, eps, torch.ones(len(x))),
        )
