r"""What training makes small: the surprise at the next token, averaged over all positions."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.device import narrowed
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.train.loader import document_mask, document_numbers

IGNORED = -100
"""As a target: this position is not asked."""
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Multiplies every row of one matrix with every row of another."""
CHUNK_NUMBERS = {"cpu": 2**20, "cuda": 2**28}
"""Scores that are held at a time: what a CPU's cache takes; on a GPU, 1 GB."""


def next_token_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    r"""The mean of $-\ln p(\text{target})$ over the positions that have one, at least in float32.

    Args:
        logits_BTV: scores of the next token, of any dtype.
        targets_BT: the token that did come next, or `IGNORED`. Where none is asked, the loss is 0.
    """
    logits_XV, targets_X = _exact(logits_BTV.flatten(0, 1)), targets_BT.flatten()
    loss = F.cross_entropy(logits_XV, targets_X, ignore_index=IGNORED, reduction="sum")
    return loss / _asked(targets_X)


class NextToken(nn.Module):
    """The objective of pre-training as a module, which is what DDP, FSDP and compile wrap.

    Args:
        model: what is trained.
        eos: the id that ends a document, where no token may look into another document; None lets
            each look back through its whole sequence.
    """

    def __init__(self, model: Qwen2, eos: int | None = None):
        super().__init__()
        self.model = model
        self.eos = eos
        self.product: Product = product
        """How scores and their gradients are multiplied; see `train/products`."""

    def forward(self, ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss of a batch."""
        mask = None
        if self.eos is not None:
            mask = document_mask(document_numbers(ids_BT, self.eos))
        x_BTD = self.model.model(ids_BT, mask=mask)
        return _ChunkedLoss.apply(
            x_BTD.flatten(0, 1),
            self.model.output_weight_VD,
            targets_BT.flatten(),
            torch.is_grad_enabled(),
            self.product,
        )


def product(a_XD: torch.Tensor, b_VD: torch.Tensor) -> torch.Tensor:
    """The usual `Product`."""
    return a_XD @ b_VD.T


class _ChunkedLoss(torch.autograd.Function):
    r"""`next_token_loss` of an output layer, some rows at a time.

    The scores of all positions at once are the largest tensor of training: for the 0.5B, 4,096
    tokens make 2.5 GB of float32, and autograd keeps several. Their gradient is simple,
    $p - \text{onehot(target)}$, so it is taken at once while the scores are at hand, and they are
    forgotten. What the 1 of a target does is one row of the weight and of its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_XD: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_X: torch.Tensor,
        with_gradient: bool,
        product: Product = product,
    ) -> torch.Tensor:
        x_XD, weight_VD = narrowed(x_XD), narrowed(weight_VD)
        rows = max(1, CHUNK_NUMBERS.get(x_XD.device.type, 2**24) // len(weight_VD))
        asked = _asked(targets_X)
        losses, dx_XD = [], torch.empty_like(x_XD)
        dweight_VD = torch.zeros_like(_exact(weight_VD))
        for start in range(0, len(x_XD), rows):
            x, targets = x_XD[start : start + rows], targets_X[start : start + rows]
            logp = _exact(product(x, weight_VD)).log_softmax(-1)
            losses.append(F.nll_loss(logp, targets, reduction="sum", ignore_index=IGNORED))
            if with_gradient:
                share = (targets != IGNORED).to(logp.dtype)[:, None] / asked
                p, target = logp.exp_().mul_(share).to(x.dtype), targets.clamp(min=0)
                dx = product(p, weight_VD.T) - share * weight_VD[target]
                dx_XD[start : start + rows] = dx
                dweight_VD += product(p.T, x.T)
                dweight_VD.index_add_(0, target, (share * -x).to(dweight_VD.dtype))
        ctx.save_for_backward(dx_XD, dweight_VD)
        return torch.stack(losses).sum() / asked

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx_XD, dweight_VD = ctx.saved_tensors
        return dx_XD * grads[0], dweight_VD * grads[0], None, None, None


def _asked(targets_X: torch.Tensor) -> torch.Tensor:
    """How many positions have a target, and 1 where none has: the loss is 0 then, and not NaN."""
    return (targets_X != IGNORED).sum().clamp(min=1)


def _exact(x: torch.Tensor) -> torch.Tensor:
    """In float32, or in float64 if it is that: sums over a vocabulary want more than 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
