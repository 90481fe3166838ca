r"""SwiGLU: the feed-forward part of a layer, where one branch decides how much of the other passes."""

import torch
import torch.nn.functional as F
from torch import nn


class SwiGLU(nn.Module):
    r"""Widens D to F twice, gates one copy by the other, and projects back to D.

    $y = W_{down}\,(\mathrm{silu}(W_{gate}\,x) \odot W_{up}\,x)$, no biases.

    Args:
        hidden_size: D.
        intermediate_size: F.

    Source: arXiv 2002.05202, eq. 5; arXiv 2407.10671, section 2.2.1.
    """

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D]."""
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
