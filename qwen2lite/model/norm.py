r"""RMSNorm: divide a vector by its root mean square, then stretch each coordinate by a weight."""

import torch
from torch import nn


class RMSNorm(nn.Module):
    r"""Scales the last dimension to a root mean square of one, then multiplies by `weight`.

    $y = w \cdot x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$. The division is done in float32 and its
    result is cast back *before* it meets the weight. The other order rounds once instead of twice,
    and so gives other numbers in bfloat16; this one is that of the published Qwen2 code.

    Args:
        hidden_size: length D of the normalised dimension.
        eps: added to the mean square, inside the root, so that a vector of zeros stays finite.

    Source: arXiv 1910.07467, eq. 4; the casts as in transformers 5.23, qwen2.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the normalised tensor, same shape and dtype as the input."""
        wide_BTD = x_BTD.float()
        mean_square = wide_BTD.square().mean(-1, keepdim=True)
        normed_BTD = (wide_BTD * torch.rsqrt(mean_square + self.eps)).to(x_BTD.dtype)
        return self.weight * normed_BTD
