"""One update of a model, and none where its loss is no number."""

import math

import torch

from qwen2lite.train.optim import clip_gradients


def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, max_gradient_norm: float) -> None:
    """Moves the optimizer's weights once, against the gradient of a loss.

    Args:
        optimizer: of the model that the loss comes from.
        loss: one number.
        max_gradient_norm: a longer gradient is shortened to this.

    Raises:
        ValueError: a loss or gradient that is no number; then nothing has moved.
    """
    optimizer.zero_grad()
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = float(clip_gradients(weights, max_gradient_norm))
    if not math.isfinite(loss.item() + norm):
        raise ValueError(
            f"the loss is {loss.item()} and the norm of its gradient {norm}; this step moved no "
            "weight. Begin again with a lower learning rate"
        )
    optimizer.step()
