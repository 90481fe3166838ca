"""What the part of `model/mlp.py` has to do. Expected values are by hand."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    random_normal,
    require_gradient,
    require_parameters,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.mlp import MUTANTS

_NAMES = ("gate_proj", "up_proj", "down_proj")


def check_mlp(mlp: Callable[..., Any]) -> Iterator[str]:
    """The checkpoint's three matrices, one number by hand, all of them against matrix products."""
    layer = call(mlp, 4, 7, name="mlp")
    shapes = {
        "gate_proj.weight": [7, 4],
        "up_proj.weight": [7, 4],
        "down_proj.weight": [4, 7],
    }
    require_parameters(layer, shapes, "mlp(4, 7)")
    yield "the checkpoint's three matrices, without biases"

    x_BTD = torch.tensor([[[1.0]]])
    matrices = [torch.tensor([[value]]) for value in (2.0, 5.0, 3.0)]
    got = call(_with(mlp(1, 1), matrices), x_BTD, name="mlp")
    want = 2.0 / (1.0 + math.exp(-2.0)) * 5.0 * 3.0
    require_tensor(got, [1, 1, 1], torch.float32, "mlp")
    if not same(got, torch.tensor([[[want]]])):
        raise Mistake(
            "With gate 2, up 5 and down 3, the input 1 becomes silu(2) · 5 · 3 = "
            f"{want:.4f}; got {got.item():.4f}.",
            _why(got, x_BTD, matrices),
        )
    yield f"with gate 2, up 5, down 3, the input 1 becomes {want:.4f}"

    matrices = [random_normal(*shape, seed=i) for i, shape in enumerate(shapes.values())]
    x_BTD = random_normal(2, 3, 4, seed=9).requires_grad_()
    layer = _with(mlp(4, 7), matrices)
    got = call(layer, x_BTD, name="mlp")
    require_tensor(got, [2, 3, 4], torch.float32, "mlp")
    gate_BTF, up_BTF = x_BTD.detach() @ matrices[0].T, x_BTD.detach() @ matrices[1].T
    want_BTD = gate_BTF / (1 + torch.exp(-gate_BTF)) * up_BTF @ matrices[2].T
    if not same(got, want_BTD, tolerance=1e-4):
        raise Mistake("On random matrices the result is wrong.", _why(got, x_BTD, matrices))
    inputs = {name: getattr(layer, name).weight for name in _NAMES}
    require_gradient(got, {"its input": x_BTD, **inputs}, "mlp")
    yield "right on random matrices, and gradients reach all three"


def _with(layer: nn.Module, matrices: list[torch.Tensor]) -> nn.Module:
    for name, matrix in zip(_NAMES, matrices, strict=True):
        getattr(layer, name).weight = nn.Parameter(matrix.clone())
    return layer


def _why(got: torch.Tensor, x_BTD: torch.Tensor, matrices: list[torch.Tensor]) -> str:
    size, width = matrices[2].shape
    known = [_with(mutant(size, width), matrices) for mutant in MUTANTS["mlp"]]
    return usual_reason(known, got, x_BTD)
