r"""Gradients written by hand, for training small models on a CPU.

Autograd differentiates every little operation by itself, and each one reads and writes whole
tensors. On a CPU, where a small model's products are as fast as the processor multiplies (or made so
by `train/products`), those trips to memory are what is left to save: derived on paper, the gradient of
a norm takes six of them in place of seventeen. Numbers and names are those of the plain parts.
"""

from typing import Any

import torch
from torch import nn

from qwen2lite.model.attention import causal_mask, fused_attend
from qwen2lite.model.parts import Parts

_BLOCK = 64
"""Queries at a time: those before a key are skipped by whole blocks, and a block stays in cache."""
_LONGEST = 1024
"""Tokens up to which attention's weights are kept for the way back; they take T²/2 a head."""


class _NormByHand(torch.autograd.Function):
    r"""$y = w \odot x r$ with $r = (\mathrm{mean}(x^2) + \epsilon)^{-1/2}$.

    Backward: $dw = \sum_X r\,(g \odot x)$ and
    $dx = r\,(g \odot w) - x\, r^3 \langle g \odot w, x\rangle / D$: the second term is there because
    r depends on every coordinate of x.
    """

    @staticmethod
    def forward(ctx: Any, x_XD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        length_X1 = torch.linalg.vector_norm(x_XD, dim=-1, keepdim=True)
        r_X1 = (length_X1.square() / x_XD.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x_XD, weight_D, r_X1)
        return (x_XD * r_X1).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (g_XD,) = grads
        x_XD, weight_D, r_X1 = ctx.saved_tensors
        product_XD = g_XD * x_XD
        dot_X1 = (product_XD @ weight_D)[:, None]
        dweight_D = r_X1[:, 0] @ product_XD
        dx_XD = (g_XD * weight_D).mul_(r_X1)
        dx_XD.addcmul_(x_XD, dot_X1 * r_X1.pow(3), value=-1 / x_XD.shape[-1])
        return dx_XD, dweight_D, None


class RMSNormByHand(nn.Module):
    """`RMSNorm` with its gradient by hand. Arguments and numbers are the same."""

    def __init__(self, hidden_size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the normalised tensor, same shape as the input."""
        normed_XD = _NormByHand.apply(x_BTD.flatten(0, -2), self.weight, self.eps)
        return normed_XD.view_as(x_BTD)


class _RopeByHand(torch.autograd.Function):
    """Turning by an angle; the gradient turns back by the same angle."""

    @staticmethod
    def forward(
        ctx: Any, x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(cos_TH, sin_TH)
        return _turned(x_BNTH, cos_TH, sin_TH, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos_TH, sin_TH = ctx.saved_tensors
        return _turned(grads[0], cos_TH, sin_TH, -1.0), None, None


def _turned(
    x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor, direction: float
) -> torch.Tensor:
    turned_BNTH = x_BNTH * cos_TH
    first, second = x_BNTH.chunk(2, dim=-1)
    to_first, to_second = turned_BNTH.chunk(2, dim=-1)
    sin_TR = sin_TH.chunk(2, dim=-1)[0]
    to_first.addcmul_(second, sin_TR, value=-direction)
    to_second.addcmul_(first, sin_TR, value=direction)
    return turned_BNTH


def rope_by_hand(x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    """`apply_rope` with its gradient by hand."""
    return _RopeByHand.apply(x_BNTH, cos_TH, sin_TH)


class _AttendByHand(torch.autograd.Function):
    r"""Causal attention, a block of queries at a time, each against the keys up to its end.

    With $P = \mathrm{softmax}(q k^\top / \sqrt H)$ and $o = P v$: $dv = P^\top g$,
    $dS = P \odot (g v^\top - \langle g, o\rangle)$, $dq = dS\,k / \sqrt H$, $dk = dS^\top q / \sqrt H$.
    The query heads that share a key head are stacked: one product serves them all.
    """

    @staticmethod
    def forward(
        ctx: Any, q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor
    ) -> torch.Tensor:
        keys, values = k_BKSH.flatten(0, 1), v_BKSH.flatten(0, 1)
        mixed_BTNH = torch.empty_like(q_BNTH.transpose(1, 2), memory_format=torch.contiguous_format)
        mixed_BNTH = mixed_BTNH.transpose(1, 2)
        blocks = []
        for start, end in _blocks(q_BNTH.shape[2]):
            queries = _stacked(q_BNTH[:, :, start:end], len(keys))
            hidden = ~causal_mask(end - start, end)
            bias = keys.new_zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
            bias = bias.repeat(queries.shape[1] // len(bias), 1)
            scores = torch.baddbmm(
                bias, queries, keys[:, :end].transpose(1, 2), alpha=q_BNTH.shape[-1] ** -0.5
            )
            weights = scores.softmax(-1)
            mixed = weights @ values[:, :end]
            mixed_BNTH[:, :, start:end] = mixed.view_as(q_BNTH[:, :, start:end])
            blocks += [queries, weights, mixed]
        ctx.save_for_backward(keys, values, *blocks)
        ctx.shapes = q_BNTH.shape, k_BKSH.shape
        return mixed_BNTH

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (g_BNTH,) = grads
        keys, values, *blocks = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        dq_BNTH = keys.new_empty(q_shape)
        scale = q_shape[-1] ** -0.5
        for number, (start, end) in enumerate(_blocks(q_shape[2])):
            queries, weights, mixed = blocks[3 * number : 3 * number + 3]
            g = _stacked(g_BNTH[:, :, start:end], len(keys))
            dvalues[:, :end].baddbmm_(weights.transpose(1, 2), g)
            dot = (g * mixed).sum(-1, keepdim=True)
            dscores = torch.baddbmm(dot, g, values[:, :end].transpose(1, 2), beta=-1)
            dscores.mul_(weights)
            dq = torch.bmm(dscores, keys[:, :end]).mul_(scale)
            dq_BNTH[:, :, start:end] = dq.view_as(dq_BNTH[:, :, start:end])
            dkeys[:, :end].baddbmm_(dscores.transpose(1, 2), queries, alpha=scale)
        return dq_BNTH, dkeys.view(k_shape), dvalues.view(k_shape)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _stacked(x_BNTH: torch.Tensor, shared: int) -> torch.Tensor:
    """The query heads of one key head below one another: [B·K, G·T, H]."""
    return x_BNTH.reshape(shared, -1, x_BNTH.shape[-1])


def attend_by_hand(
    q_BNTH: torch.Tensor,
    k_BKSH: torch.Tensor,
    v_BKSH: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """`attend` with its gradient by hand where that is faster, else `fused_attend`."""
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    plain = mask is None and q_BNTH.device.type == "cpu" and q_BNTH.dtype == v_BKSH.dtype
    if plain and queries == keys <= _LONGEST and q_BNTH.requires_grad:
        return _AttendByHand.apply(q_BNTH, k_BKSH, v_BKSH)
    return fused_attend(q_BNTH, k_BKSH, v_BKSH, mask)


PARTS = Parts(norm=RMSNormByHand, apply_rope=rope_by_hand, attend=attend_by_hand)
"""Parts for training in float32 on a CPU."""
