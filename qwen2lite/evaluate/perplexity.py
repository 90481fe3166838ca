r"""Perplexity: between how many equally likely tokens a model hesitates, on average."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from qwen2lite.model.qwen2 import Qwen2

_SCORED_AT_ONCE = 1024
"""Positions: scores of a whole text of 128K tokens would be 80 GB with Qwen2's vocabulary."""


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
        ValueError: not one window, or ids outside the vocabulary.
    """
    windows = len(ids) // length
    if length < 2 or not windows:
        raise ValueError(f"{len(ids)} tokens give no window of {length}, which needs 2 or more")
    rows = torch.as_tensor([int(i) for i in ids[: windows * length]]).view(windows, length)
    losses = []
    model.check_ids(rows)
    for row in rows:
        x_BTD = model.model(row[None].to(model.device))
        pieces = []
        for start in range(0, length - 1, _SCORED_AT_ONCE):
            scored = model.score(x_BTD[:, start : start + _SCORED_AT_ONCE])
            wanted = row[start + 1 : start + 1 + _SCORED_AT_ONCE]
            logits = scored[0, : len(wanted)].float().cpu()
            pieces.append(F.cross_entropy(logits, wanted, reduction="none"))
        losses.append(torch.cat(pieces))
    return torch.stack(losses)


def perplexity(model: Qwen2, ids: Sequence[int], length: int) -> float:
    """e to the mean of `token_losses`: 1 is certain of every token, V knows nothing."""
    return math.exp(float(token_losses(model, ids, length).double().mean()))


def perplexity_by_position(losses: torch.Tensor, width: int) -> list[float]:
    """e to the mean loss of `width` positions at a time, over all windows: where does a model break?

    One number for a whole window hides it, since the good beginning is averaged in.

    Args:
        losses: from `token_losses`, a row a window and a column a position.
        width: positions that are taken together, 1 or more; the last group may have fewer.
    """
    return [float(group.double().mean().exp()) for group in losses.split(width, dim=1)]
