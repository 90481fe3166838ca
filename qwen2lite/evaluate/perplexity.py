r"""Perplexity: between how many equally likely tokens a model hesitates, on average."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from qwen2lite.model.qwen2 import Qwen2


@torch.inference_mode()
def token_losses(model: Qwen2, ids: Sequence[int], length: int) -> torch.Tensor:
    r"""$-\ln p$ of each token after the first of its window, the text being cut into windows.

    Args:
        model: in evaluation mode.
        ids: the text; what doesn't fill the last window is left out.
        length: of a window, in tokens.

    Returns:
        losses of shape [windows, length - 1]; column t is the token with t + 1 before it.

    Raises:
        ValueError: not one window.
    """
    windows = len(ids) // length
    if length < 2 or not windows:
        raise ValueError(f"{len(ids)} tokens give no window of {length}, which needs 2 or more")
    rows = torch.as_tensor([int(i) for i in ids[: windows * length]]).view(windows, length)
    losses = []
    for row in rows:
        logits_TV = model(row[None].to(model.device))[0, :-1].float().cpu()
        losses.append(F.cross_entropy(logits_TV, row[1:], reduction="none"))
    return torch.stack(losses)


def perplexity(model: Qwen2, ids: Sequence[int], length: int) -> float:
    """e to the mean of `token_losses`: 1 is certain of every token, V knows nothing."""
    return math.exp(float(token_losses(model, ids, length).double().mean()))
