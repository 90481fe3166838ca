"""What the exercise 21_rmsnorm asks beside the layer: its two steps, a mended one, a measurement."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.checks.norm import normed_answers
from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.norm_tasks import MUTANTS

Part = Callable[..., Any]


def check_root_mean_square(root_mean_square: Part) -> Iterator[str]:
    """Roots of 25 and 36 by hand, eps alone, random vectors, float16."""
    pair = torch.tensor([[[1.0, 7.0]]])
    _require_root(root_mean_square, pair, 0.0, [5.0], "[1, 7] with eps = 0")
    _require_root(root_mean_square, pair, 11.0, [6.0], "[1, 7] with eps = 11")
    _require_root(root_mean_square, 0 * pair, 0.25, [0.5], "[0, 0] with eps = 0.25")
    yield "5 for [1, 7], 6 with eps = 11, and 0.5 for zeros with eps = 0.25"

    x_BTD = random_normal(2, 3, 5)
    want = [(sum(v * v for v in vector) / 5) ** 0.5 for row in x_BTD.tolist() for vector in row]
    _require_root(root_mean_square, x_BTD, 0.0, want, "six random vectors of five numbers")
    yield "one root for each vector"

    loud = torch.tensor([[[300.0, -300.0]]]).half()
    _require_root(root_mean_square, loud, 0.0, [300.0], "[300, -300] in float16")
    yield "in float32 also where the vector is float16"

    leaf = x_BTD.clone().requires_grad_()
    got = call(root_mean_square, leaf, 0.0)
    require_gradient(got, {"the vectors": leaf}, "root_mean_square")


def _require_root(
    root_mean_square: Part, x_BTD: torch.Tensor, eps: float, want: list[float], what: str
) -> None:
    got = call(root_mean_square, x_BTD, eps)
    why = usual_reason(MUTANTS["root_mean_square"], got, x_BTD, eps)
    shape = [*x_BTD.shape[:-1], 1]
    if isinstance(got, torch.Tensor) and list(got.shape) == shape:
        usual = "Go to float32 first, with `.float()`: the square of 256 is infinite in float16."
    else:
        usual = "Keep the last dimension, with `keepdim=True`: it is then ready to divide by."
    require_tensor(got, shape, torch.float32, "root_mean_square", why or usual)
    if not same(got.flatten(), torch.tensor(want)):
        wanted = numbers(torch.tensor(want))
        raise Mistake(f"For {what}: wanted {wanted}, got {numbers(got)}.", why)


def check_rms_norm(rms_norm: Part) -> Iterator[str]:
    """All that the layer has to do, from a function that is given the weight and eps."""
    yield from normed_answers(_as_layer(rms_norm), "rms_norm")


def check_mended_norm(mended_norm: Part) -> Iterator[str]:
    """The exercise's repaired function: it has to do what rms_norm does."""
    yield from normed_answers(_as_layer(mended_norm), "mended_norm")


def _as_layer(function: Part) -> Part:
    class Layer(nn.Module):
        def __init__(self, size: int, eps: float):
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

        def forward(self, x_BTD: torch.Tensor) -> Any:
            return function(x_BTD, self.weight, self.eps)

    return Layer


def check_loudest_share(loudest_share: Part) -> Iterator[str]:
    """Shares by hand, one of them negative, then the same by loops on random vectors."""
    x_TD = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0], [1.0, 0.0, -3.0, 0.0]])
    _require_shares(loudest_share, x_TD, [0.64, 0.25, 0.9])
    yield "by hand: 16 of 25, 1 of 4, 9 of 10"

    x_TD = random_normal(5, 7)
    squares = [[value * value for value in row] for row in x_TD.tolist()]
    _require_shares(loudest_share, x_TD, [max(row) / sum(row) for row in squares])
    yield "one share for each token"


def _require_shares(loudest_share: Part, x_TD: torch.Tensor, want: list[float]) -> None:
    got = call(loudest_share, x_TD)
    why = usual_reason(MUTANTS["loudest_share"], got, x_TD)
    require_tensor(got, [len(want)], torch.float32, "loudest_share", why or "One share a token.")
    if not same(got, torch.tensor(want)):
        wanted = numbers(torch.tensor(want))
        raise Mistake(f"The shares are {wanted}, and yours are {numbers(got)}.", why)
