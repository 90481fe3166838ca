"""Wrong versions of the part in `model/norm.py`. The docstring says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.norm import RMSNorm


class EpsOutsideRoot(RMSNorm):
    """eps is added outside the root. It belongs to the mean square, inside."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        root = wide_BTD.square().mean(-1, keepdim=True).sqrt() + self.eps
        return self.weight * (wide_BTD / root).to(x_BTD.dtype)


class EpsForgotten(RMSNorm):
    """eps is not added at all, so a vector of zeros becomes 0/0."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        root = wide_BTD.square().mean(-1, keepdim=True).sqrt()
        return self.weight * (wide_BTD / root).to(x_BTD.dtype)


class MeanSubtracted(RMSNorm):
    """The mean is subtracted first: that is LayerNorm. RMSNorm leaves the mean where it is."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BTD - x_BTD.mean(-1, keepdim=True))


class SumForMean(RMSNorm):
    """The squares are summed, not averaged, so the result shrinks with the width of the model."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        total = wide_BTD.square().sum(-1, keepdim=True)
        return self.weight * (wide_BTD * torch.rsqrt(total + self.eps)).to(x_BTD.dtype)


class WeightBeforeCast(RMSNorm):
    """The weight is multiplied before the cast back. Round to the input's dtype first, then
    multiply: the checkpoint was trained in that order."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        mean_square = wide_BTD.square().mean(-1, keepdim=True)
        scale = torch.rsqrt(mean_square + self.eps)
        return (self.weight.float() * wide_BTD * scale).to(x_BTD.dtype)


class NarrowSquares(RMSNorm):
    """The squares are taken in the input's own dtype: float16 overflows at 256², bfloat16 rounds.
    Go to float32 first."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        mean_square = x_BTD.square().mean(-1, keepdim=True)
        return self.weight * (x_BTD * torch.rsqrt(mean_square + self.eps))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "norm": (
        EpsOutsideRoot,
        EpsForgotten,
        MeanSubtracted,
        SumForMean,
        WeightBeforeCast,
        NarrowSquares,
    )
}
"""The wrong versions of each part."""
