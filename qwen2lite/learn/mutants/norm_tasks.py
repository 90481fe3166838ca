"""Wrong answers to the tasks of the exercise 21_rmsnorm that are no part of the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.mutants import norm as of_the_part


def eps_outside(x_BTD: Tensor, weight: Tensor, eps: float) -> Tensor:
    """eps is added to the root. It belongs to the mean square, under the root."""
    length = x_BTD.float().norm(dim=-1, keepdim=True)
    root = length / x_BTD.shape[-1] ** 0.5
    return weight * (x_BTD.float() / (root + eps)).to(x_BTD.dtype)


def root_with_eps_outside(x_BTD: Tensor, eps: float) -> Tensor:
    """eps is added to the root. It belongs to the mean square, under the root."""
    return x_BTD.float().square().mean(-1, keepdim=True).sqrt() + eps


def root_without_eps(x_BTD: Tensor, eps: float) -> Tensor:
    """eps is missing. Add it to the mean square, under the root."""
    return x_BTD.float().square().mean(-1, keepdim=True).sqrt()


def length_of_the_vector(x_BTD: Tensor, eps: float) -> Tensor:
    """The squares are summed: that is the length of the vector, which grows with the number of
    coordinates. Take their mean."""
    return (x_BTD.float().square().sum(-1, keepdim=True) + eps).sqrt()


def no_root(x_BTD: Tensor, eps: float) -> Tensor:
    """The root is missing: this is the mean square."""
    return x_BTD.float().square().mean(-1, keepdim=True) + eps


def root_of_all(x_BTD: Tensor, eps: float) -> Tensor:
    """One mean is taken over all vectors. Each has its own: say over which dimension, the last."""
    mean_square = x_BTD.float().square().mean()
    return (mean_square + eps).sqrt().expand(*x_BTD.shape[:-1], 1)


def root_in_half_precision(x_BTD: Tensor, eps: float) -> Tensor:
    """The squares are taken in the vector's own dtype. In float16 the square of 256 is infinite
    already: go to float32 first."""
    return (x_BTD.square().mean(-1, keepdim=True) + eps).sqrt().float()


def largest_coordinate(x_TD: Tensor) -> Tensor:
    """The largest number is divided by the sum of all. It is shares of the sum of *squares* that
    the norm is made of."""
    return x_TD.abs().amax(-1) / x_TD.abs().sum(-1)


def over_the_tokens(x_TD: Tensor) -> Tensor:
    """The shares are taken along the text. A row is a token: look along its coordinates, the last
    dimension."""
    squares_TD = x_TD.square()
    return squares_TD.amax(0) / squares_TD.sum(0)


def of_all_tokens(x_TD: Tensor) -> Tensor:
    """Each token's loudest square is divided by the squares of all tokens together. Every token has
    a sum of its own."""
    squares_TD = x_TD.square()
    return squares_TD.amax(-1) / squares_TD.sum()


def signs_kept(x_TD: Tensor) -> Tensor:
    """The largest number is looked for before squaring, and large negative ones are overlooked."""
    return x_TD.amax(-1).square() / x_TD.square().sum(-1)


def _as_function(part: Callable[..., Any]) -> Callable[..., Tensor]:
    """A wrong layer as a function of the vectors, the weight and eps."""

    def answer(x_BTD: Tensor, weight: Tensor, eps: float) -> Tensor:
        layer = part(len(weight), eps)
        del layer.weight  # the weight that is given shall get the gradient
        layer.weight = weight
        return torch.as_tensor(layer(x_BTD))

    answer.__name__, answer.__doc__ = part.__name__, part.__doc__
    return answer


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "root_mean_square": (
        root_with_eps_outside,
        root_without_eps,
        length_of_the_vector,
        no_root,
        root_of_all,
        root_in_half_precision,
    ),
    "rms_norm": tuple(map(_as_function, of_the_part.MUTANTS["norm"])),
    "loudest_share": (largest_coordinate, over_the_tokens, of_all_tokens, signs_kept),
}
"""The wrong versions of each task."""
