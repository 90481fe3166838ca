r"""Experts that got no token, when several processes average their gradients.

An expert that none of a process's tokens chose is on no path from the loss to the weights, and its
gradient is None. To the other processes that looks like one that is late: they wait for ever. So here
it gets a gradient of zeros. An expert that *no* process used loses them again, because a single
process would have left it where it is, and AdamW moves a weight with a gradient of zero too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from qwen2lite.model.qwen2 import DecoderLayer


class _ZeroGradient(torch.autograd.Function):
    """Passes a tensor through; going back, gives zeros to the weights that are named beside it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*weights)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return grads[0], *(torch.zeros_like(weight) for weight in ctx.saved_tensors)


class IdleExperts:
    """Watches the experts of a model, each of which is a module of its own in `mlp.experts`.

    Experts whose weights are stacked in one tensor always have a gradient and need no watch.

    Args:
        objective: holds the model.
    """

    def __init__(self, objective: nn.Module):
        self._experts: list[nn.Module] = []
        self._used: set[nn.Module] = set()
        for layer in objective.modules():
            experts = (
                getattr(layer.mlp, "experts", None) if isinstance(layer, DecoderLayer) else None
            )
            if isinstance(experts, nn.ModuleList):
                self._watch(layer.get_submodule("mlp"), experts)

    def _watch(self, mlp: nn.Module, experts: nn.ModuleList) -> None:
        ran: set[nn.Module] = set()
        mlp.register_forward_pre_hook(lambda mlp, inputs: ran.clear())
        for expert in experts:
            expert.register_forward_hook(lambda expert, inputs, output: ran.add(expert))
            self._experts.append(expert)
        mlp.register_forward_hook(partial(self._give_zeros, experts, ran))

    def _give_zeros(
        self,
        experts: nn.ModuleList,
        ran: set[nn.Module],
        mlp: nn.Module,
        inputs: tuple[torch.Tensor, ...],
        output: torch.Tensor,
    ) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return output
        self._used |= ran
        idle = [w for expert in experts if expert not in ran for w in expert.parameters()]
        return _ZeroGradient.apply(output, *idle)

    def settle(self, total: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Takes the gradients from the experts that no process used since the last time.

        Args:
            total: sums a tensor over all processes.
        """
        if not self._experts:
            return
        used = total(torch.tensor([int(expert in self._used) for expert in self._experts]))
        for expert, times in zip(self._experts, used.tolist(), strict=True):
            if not times:
                for weight in expert.parameters():
                    weight.grad = None
        self._used.clear()
