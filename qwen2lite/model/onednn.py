"""oneDNN's product by its own name in PyTorch, where the usual names would take another library.

The name is private, and a release may drop it: who uses it asks `faster_with_onednn` first.
"""

from collections.abc import Callable

import torch

from qwen2lite.model.device import faster


def onednn_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x times the transpose of a weight, which may lie in oneDNN's blocks; nothing learns by it."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def onednn_blocks(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A weight in the blocks that oneDNN's kernels read, for inputs of about so many rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def faster_with_onednn(
    with_it: Callable[[], object], without: Callable[[], object], times: float = 1.0
) -> bool:
    """Whether a way that uses oneDNN is there, and so many times as fast as one without."""
    try:
        return faster(with_it, without, times)
    except (AttributeError, RuntimeError):
        return False
