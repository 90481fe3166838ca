r"""Float32 products for training on a CPU: MKL's, as PyTorch has it, or oneDNN's if they are faster.

MKL keeps its fastest code for processors of its own maker. On another with AVX-512 oneDNN multiplies
float32 more than twice as fast. PyTorch has it too, but only for layers that don't learn; here are the
gradients, which are two more products.
"""

import functools
from functools import partial
from typing import Any

import torch
from torch import nn

from qwen2lite.model.onednn import faster_with_onednn, onednn_linear
from qwen2lite.train.loss import NextToken, product

_FASTER = 1.5
"""As much faster oneDNN has to be: a run that goes on must choose as it chose before."""


def use_fastest_products(objective: nn.Module) -> None:
    """Has the layers of an objective, and its loss, multiply through oneDNN where that is faster.

    Args:
        objective: in float32 on the CPU; changed in place, its parameters keep their names.
    """
    if not onednn_is_faster():
        return
    for module in objective.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]
        elif isinstance(module, NextToken):
            module.product = onednn_product


@functools.cache
def onednn_is_faster() -> bool:
    """Multiplies both ways on one thread; tried once a process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrices = torch.ones(1024, 256), torch.ones(256, 256)
        with_it, without = (partial(way, *matrices) for way in (onednn_product, product))
        return faster_with_onednn(with_it, without, _FASTER)
    finally:
        torch.set_num_threads(threads)


def onednn_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a times the transpose of b, whose rows are as long as those of a."""
    return _onednn_linear(a, b)


# An operation of its own: PyTorch's compiler takes the one inside for a layer that never learns.
@torch.library.custom_op("qwen2lite::onednn_linear", mutates_args=())
def _onednn_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return onednn_linear(x, weight, bias)


@_onednn_linear.register_fake
def _shape_only(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None


def _gradients(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Of y = x Wᵀ + b: g W, gᵀ x, and the sum of g."""
    x, weight = ctx.saved_tensors
    rows = g.flatten(0, -2)
    dweight = onednn_product(rows.T, x.flatten(0, -2).T)
    return onednn_product(g, weight.T), dweight, rows.sum(0) if ctx.has_bias else None


_onednn_linear.register_autograd(_gradients, setup_context=_keep)


def _linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _onednn_linear(x, layer.weight, layer.bias)
