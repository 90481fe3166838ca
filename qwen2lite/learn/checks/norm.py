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
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.norm import MUTANTS, RootOfZero

Part = Callable[..., Any]


def check_norm(norm: Part) -> Iterator[str]:
    """One weight, then all that `normed_answers` asks."""
    layer = call(norm, 6, 1e-6, name="norm")
    require_parameters(layer, {"weight": [6]}, "norm(6, 1e-6)")
    if not same(layer.weight, torch.ones(6)):
        raise Mistake("The weight doesn't start as ones.", "A new norm only normalises.")
    yield "one parameter, weight, that starts as ones"
    yield from normed_answers(norm, "norm")


def normed_answers(norm: Part, name: str) -> Iterator[str]:
    """The root mean square by hand, eps inside the root, the weight, the casts in their order.

    Args:
        norm: gives a layer for a size and an eps.
        name: how the messages call it.
    """
    # The mean square of (1, 7) is 25, with eps 11 it is 36: roots of 5 and 6.
    _require(norm, name, 0.0, [1.0, 7.0], [0.2, 1.4], "The root mean square of [1, 7] is 5")
    what = "With eps = 11, [1, 7] is divided by √36"
    _require(norm, name, 11.0, [1.0, 7.0], [1 / 6, 7 / 6], what)
    yield "[1, 7] is divided by its root mean square, 5; by 6 where eps is 11"

    _require(norm, name, 1e-6, [0.0, 0.0], [0.0, 0.0], "Zeros stay zeros")
    _require_slope_at_zero(norm, name)
    yield "zeros stay zeros, and have a gradient"

    layer = _layer(norm, 6, 1e-6, weight=torch.arange(1.0, 7.0))
    x_BTD = random_normal(2, 3, 6)
    leaf = x_BTD.clone().requires_grad_()
    got = call(layer, leaf, name=name)
    root = x_BTD.double().square().mean(-1, keepdim=True).sqrt()
    if not same(got, (x_BTD / root * torch.arange(1.0, 7.0)).float(), tolerance=1e-4):
        raise Mistake(
            "With a weight of 1, 2, … 6 the result is wrong.",
            _why(got, x_BTD, 1e-6, torch.arange(1.0, 7.0))
            or "Each coordinate of the normalised vector is multiplied by its own weight.",
        )
    require_gradient(got, {"its input": leaf, "weight": layer.get_parameter("weight")}, name)
    yield "every coordinate has its own weight, and gradients pass"

    _require_wide_squares(norm, name)
    _require_cast_before_weight(norm, name)
    yield "squares in float32; rounded first, then multiplied by the weight"


def _require_slope_at_zero(norm: Part, name: str) -> None:
    zeros = torch.zeros(1, 1, 4, requires_grad=True)
    got = call(norm(4, 1e-6), zeros, name=name)
    if got.requires_grad:
        (slope,) = torch.autograd.grad(got.sum(), zeros, allow_unused=True)
        if slope is not None and not slope.isfinite().all():
            wrong = f"The gradient at a vector of zeros is {numbers(slope)}."
            raise Mistake(wrong, told_by(RootOfZero))


def _require_wide_squares(norm: Part, name: str) -> None:
    big_BTD = torch.tensor([[[300.0, 300.0, 300.0, -300.0]]]).half()
    got = call(_layer(norm, 4, 1e-6, torch.ones(4).half()), big_BTD, name=name)
    why = _why(got, big_BTD, 1e-6, torch.ones(4).half())
    require_tensor(got, [1, 1, 4], torch.float16, f"{name} of a float16 tensor", why)
    if not same(got, big_BTD / 300, tolerance=1e-3):
        wrong = f"In float16, [300, 300, 300, -300] became {numbers(got)}, not [1, 1, 1, -1]."
        raise Mistake(wrong, why)


def _require_cast_before_weight(norm: Part, name: str) -> None:
    x_BTD, weight = random_normal(3, 5, 8).bfloat16(), random_normal(8, seed=1).bfloat16()
    got = call(_layer(norm, 8, 1e-6, weight), x_BTD, name=name)
    wide_BTD = x_BTD.float()
    rounded = wide_BTD / (wide_BTD.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    want = weight * rounded.bfloat16()
    require_tensor(got, want.shape, torch.bfloat16, f"{name} of a bfloat16 tensor")
    # Two right orders of a float32 sum may round one number apart, the wrong order many.
    if (got != want).sum() > 4:
        raise Mistake(
            f"In bfloat16 {int((got != want).sum())} of {want.numel()} are rounded wrongly.",
            _why(got, x_BTD, 1e-6, weight),
        )


def _layer(norm: Part, size: int, eps: float, weight: torch.Tensor) -> nn.Module:
    layer = norm(size, eps)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def _why(got: torch.Tensor, x_BTD: torch.Tensor, eps: float, weight: torch.Tensor) -> str:
    def answering(mutant: Part) -> Part:
        def answer(x_BTD: torch.Tensor) -> torch.Tensor:
            return _layer(mutant, len(weight), eps, weight)(x_BTD)

        answer.__doc__ = mutant.__doc__
        return answer

    return usual_reason(map(answering, MUTANTS["norm"]), got, x_BTD)


def _require(
    norm: Part, name: str, eps: float, x: list[float], want: list[float], what: str
) -> None:
    x_BTD = torch.tensor(x).view(1, 1, -1)
    got = call(norm(len(x), eps), x_BTD, name=name)
    require_tensor(got, x_BTD.shape, torch.float32, name)
    if not same(got.flatten(), torch.tensor(want)):
        raise Mistake(
            f"{what}: wanted {numbers(torch.tensor(want))}, got {numbers(got)}.",
            _why(got, x_BTD, eps, torch.ones(len(x))),
        )
