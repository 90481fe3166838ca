r"""Experts for a GPU: all of their weights in two tensors, all of their products in two calls.

A loop over experts starts a dozen small kernels for each and has to ask the GPU how many tokens
each one got. A grouped product takes the borders between the experts' tokens as a tensor that
stays there: `Parts(moe=grouped_moe)`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.config import Qwen2Config
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
        numbers = torch.arange(len(self.down_proj), device=chosen.device)
        ends_E = torch.searchsorted(experts, numbers, right=True, out_int32=True)
        # In training the stream may be wider than the weights, and autocast doesn't know this product.
        rows = x_XD.to(self.down_proj.dtype).index_select(0, by_expert // chosen.shape[1])
        gate, up = F.grouped_mm(rows, self.gate_up_proj.mT, offs=ends_E).chunk(2, dim=-1)
        updates = F.grouped_mm(F.silu(gate) * up, self.down_proj.mT, offs=ends_E)
        # Every row goes back to the place of its choice, so that its gradient is a plain copy.
        unsorted = torch.empty_like(updates).index_copy(0, by_expert, updates)
        shares = weights.to(x_XD.dtype)
        return torch.einsum("xk,xkd->xd", shares, unsorted.unflatten(0, chosen.shape))


def grouped_moe(
    config: Qwen2Config,
    mlp: Callable[[int, int], nn.Module],
    route: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> MixtureOfExperts:
    """The part `moe` with grouped experts."""
    return MixtureOfExperts(config, mlp, route, GroupedExperts)
