"""Wrong versions of the part in `model/mlp.py`. The docstring says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from qwen2lite.model.mlp import SwiGLU


class BranchesSwapped(SwiGLU):
    """silu is on the wrong branch: it belongs to gate_proj, and up_proj stays as it is (mlx-lm #767
    had a helper whose two arguments had changed places)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gate_proj(x_BTD) * F.silu(self.up_proj(x_BTD)))


class GeluGate(SwiGLU):
    """The gate's function is GELU, which makes it GeGLU. Qwen2 has SiLU: x times sigmoid of x (candle
    #3745 is the reverse, a Gemma with SiLU; the two look alike, and nobody noticed)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class SigmoidGate(SwiGLU):
    """The gate's function is the sigmoid alone (the older GLU). SiLU is x times sigmoid of x."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gate_proj(x_BTD).sigmoid() * self.up_proj(x_BTD))


class SiluOfTheProduct(SwiGLU):
    """silu is taken of the product of both branches. It is taken of the gate, and then multiplied: a
    bracket in the wrong place (breakdown-minimind #3, matformer #4)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD) * self.up_proj(x_BTD)))


class BranchesAdded(SwiGLU):
    """The branches are added. A gate multiplies: it decides how much of the other passes."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) + self.up_proj(x_BTD))


class NoGate(SwiGLU):
    """One branch is missing: up_proj never enters the result."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "mlp": (BranchesSwapped, GeluGate, SigmoidGate, SiluOfTheProduct, BranchesAdded, NoGate)
}
"""The wrong versions of each part."""
