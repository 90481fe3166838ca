"""Wrong versions of the part in `model/norm.py`. The docstring says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.norm import RMSNorm


class EpsOutsideRoot(RMSNorm):
    """eps is added outside the root. It belongs to the mean square, inside (OLMo #281 found it
    outside): with 10⁻⁶ outside, a vector that is nearly nothing comes out at full size."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        root = wide_BTD.square().mean(-1, keepdim=True).sqrt() + self.eps
        return self.weight * (wide_BTD / root).to(x_BTD.dtype)


class EpsForgotten(RMSNorm):
    """The eps that was given is not what is added: it is missing, or another one is written in the
    code. Missing, a vector of zeros becomes 0/0."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        root = wide_BTD.square().mean(-1, keepdim=True).sqrt()
        return self.weight * (wide_BTD / root).to(x_BTD.dtype)


class RootOfZero(RMSNorm):
    """The root is taken first, and eps added to its square. The result is right, but the root of
    zero has an infinite slope, and training meets not-a-number at the first vector of zeros: add
    eps before any root is taken."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        root = wide_BTD.square().mean(-1, keepdim=True).sqrt()
        scale = torch.rsqrt(root.square() + self.eps)
        return self.weight * (wide_BTD * scale).to(x_BTD.dtype)


class DividedByRsqrt(RMSNorm):
    """The vector is divided by `rsqrt`, which is one over the root already: large ones grow and
    training diverges (llm-foundry #371). Multiply by it, or divide by `sqrt`."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        mean_square = wide_BTD.square().mean(-1, keepdim=True)
        return self.weight * (wide_BTD / torch.rsqrt(mean_square + self.eps)).to(x_BTD.dtype)


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


class MeanOfAll(RMSNorm):
    """One mean is taken over everything, so a loud token makes all others quiet. Each vector has a
    mean of its own: over the last dimension, with `mean(-1, keepdim=True)`."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        scale = torch.rsqrt(wide_BTD.square().mean() + self.eps)
        return self.weight * (wide_BTD * scale).to(x_BTD.dtype)


class OnePlusWeight(RMSNorm):
    """The vector is multiplied by 1 + weight. Gemma's checkpoints store the weight less one;
    Qwen2's store it as it is."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BTD) / self.weight * (1 + self.weight)


class WeightBeforeCast(RMSNorm):
    """The weight is multiplied before the cast back. Qwen2's code rounds to the input's dtype first
    and multiplies then; a kernel that doesn't gives other numbers (TransformerEngine #1132)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        mean_square = wide_BTD.square().mean(-1, keepdim=True)
        scale = torch.rsqrt(mean_square + self.eps)
        return (self.weight.float() * wide_BTD * scale).to(x_BTD.dtype)


class LeftInFloat32(RMSNorm):
    """The result stays float32, and the next matrix, in the input's dtype, refuses it: cast back
    with `.to(x.dtype)` (transformers #25421)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        wide_BTD = x_BTD.float()
        mean_square = wide_BTD.square().mean(-1, keepdim=True)
        return self.weight * (wide_BTD * torch.rsqrt(mean_square + self.eps))


class NarrowSquares(RMSNorm):
    """The squares are taken in the input's own dtype: float16 overflows at 256², bfloat16 rounds
    (a Llama 2 talked nonsense over it, meta-llama/llama #1048). Go to float32 first."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        mean_square = x_BTD.square().mean(-1, keepdim=True)
        return self.weight * (x_BTD * torch.rsqrt(mean_square + self.eps))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "norm": (
        EpsOutsideRoot,
        EpsForgotten,
        RootOfZero,
        DividedByRsqrt,
        MeanSubtracted,
        SumForMean,
        MeanOfAll,
        OnePlusWeight,
        WeightBeforeCast,
        LeftInFloat32,
        NarrowSquares,
    )
}
"""The wrong versions of each part."""
