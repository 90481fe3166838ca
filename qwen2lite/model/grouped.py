r"""Experts for a GPU: all of their weights in two tensors, all of their products in two calls.

A loop over experts starts a dozen small kernels for each and has to ask the GPU how many tokens
each one got. A grouped product takes the borders between the experts' tokens as a tensor that
stays there: `Parts(moe=grouped_moe)`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.device import narrowed
from qwen2lite.model.moe import MixtureOfExperts


class GroupedExperts(nn.Module):
    r"""What `Experts` does, with SwiGLU built in and the weights stacked.

    The parameters are called as in newer transformers. Files are read in either form and written
    as published, one tensor a matrix of an expert. PyTorch's product has no float64, and for
    bfloat16 on a GPU it wants D and F to be multiples of 8.

    Args:
        config: gives D, E and the width of an expert.
        mlp: not used; these experts are always SwiGLU.
    """

    def __init__(self, config: Qwen2Config, mlp: Callable[[int, int], nn.Module]):
        super().__init__()
        count, size, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, size))
        self.down_proj = nn.Parameter(torch.empty(count, size, width))
        for weight in (self.gate_up_proj, self.down_proj):
            nn.init.normal_(weight, std=config.initializer_range)

    def forward(
        self, x_XD: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Returns mixed_XD, given what `route` says of each token."""
        experts, by_expert = chosen.flatten().sort(stable=True)
        places = torch.arange(len(by_expert), device=chosen.device)
        back = torch.empty_like(by_expert).scatter_(0, by_expert, places)
        numbers = torch.arange(len(self.down_proj), device=chosen.device)
        ends_E = torch.searchsorted(experts, numbers, right=True, out_int32=True)
        shares = weights.flatten().index_select(0, by_expert)[:, None]
        # In training the stream may be wider than the weights.
        gate_up, down = narrowed(self.gate_up_proj), narrowed(self.down_proj)
        rows = _Taken.apply(x_XD.to(down.dtype), by_expert, back, chosen.shape[1])
        gate, up = F.grouped_mm(rows, gate_up.mT, offs=ends_E).chunk(2, dim=-1)
        inner = F.silu(gate) * up * shares.to(down.dtype)
        updates = F.grouped_mm(inner, down.mT, offs=ends_E)
        return _Taken.apply(updates, back, by_expert, 1).unflatten(0, chosen.shape).sum(1)


class _Taken(torch.autograd.Function):
    """Rows of x, each taken `copies` times, in the order given.

    PyTorch takes the gradient of any rows by adding them up one after the other, since it can't know
    how often each was taken. Here they are put back in their places, and summed side by side.
    """

    @staticmethod
    def forward(
        ctx: Any, x_XD: torch.Tensor, order: torch.Tensor, back: torch.Tensor, copies: int
    ) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x_XD.index_select(0, order // copies)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return (
            grads[0].index_select(0, back).unflatten(0, (-1, ctx.copies)).sum(1),
            None,
            None,
            None,
        )


def grouped_moe(
    config: Qwen2Config,
    mlp: Callable[[int, int], nn.Module],
    route: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> MixtureOfExperts:
    """The part `moe` with grouped experts."""
    return MixtureOfExperts(config, mlp, route, GroupedExperts)
