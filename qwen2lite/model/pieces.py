r"""Attention to a piece of the keys, and the sum that puts such pieces together again.

A softmax over many keys can be taken piece by piece: each piece gives its mixture of the values and
one number a query, the logarithm of its summed exponentials (lse). That number says how much the
piece counts beside the others.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from qwen2lite.model.attention import causal_mask
from qwen2lite.model.tiles import attend_in_tiles, suits_tiles, wants_gradient

_SCORES_AT_ONCE = 2**24
_MANY_QUERIES = 1024


def attend_piece(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""`attend` to some of the keys, written as its formula, with the lse of the scores.

    $\mathrm{lse} = \ln \sum_s e^{q k_s / \sqrt{H}}$, and the weights are $e^{score - \mathrm{lse}}$.

    Args:
        q_BNTH: rotated queries.
        k_BKSH: rotated keys of the piece.
        v_BKSH: values of the piece.
        causal: the queries are the last T of the S positions and don't see what comes after them;
            otherwise they see the whole piece.

    Returns:
        mixed_BNTH and lse_BNT, in float32 (float64 where the queries are).
    """
    wide = torch.promote_types(q_BNTH.dtype, torch.float32)
    q_BKGTH = q_BNTH.unflatten(1, (k_BKSH.shape[1], -1)).to(wide)
    scores_BKGTS = torch.einsum("bkgth,bksh->bkgts", q_BKGTH, k_BKSH.to(wide))
    scores_BKGTS = scores_BKGTS * q_BNTH.shape[-1] ** -0.5
    if causal:
        seen_TS = causal_mask(q_BNTH.shape[2], k_BKSH.shape[2], q_BNTH.device)
        scores_BKGTS = scores_BKGTS.masked_fill(~seen_TS, float("-inf"))
    lse_BKGT = scores_BKGTS.logsumexp(-1)
    weights_BKGTS = (scores_BKGTS - lse_BKGT[..., None]).exp()
    mixed_BKGTH = torch.einsum("bkgts,bksh->bkgth", weights_BKGTS, v_BKSH.to(wide))
    return mixed_BKGTH.flatten(1, 2), lse_BKGT.flatten(1, 2)


def fused_attend_piece(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend_piece` without ever holding all scores: through PyTorch's kernels, or by slices.

    `scaled_dot_product_attention` keeps the lse for itself, so its kernels are called by their own
    names. They know no gradient of the lse; where one is wanted, the formula runs instead.

    Args:
        q_BNTH: rotated queries.
        k_BKSH: rotated keys of the piece.
        v_BKSH: values of the piece.
        causal: as in `attend_piece`, and there have to be as many queries as keys.

    Returns:
        mixed_BNTH, in the dtype of the queries or wider, and lse_BNT.

    Raises:
        ValueError: no query or no key; PyTorch's kernel for the CPU would end the whole process.
    """
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    if not queries or not keys:
        raise ValueError(
            f"a piece needs a query and a key, and has {queries} and {keys}: leave empty ones out"
        )
    has_kernel = q_BNTH.device.type == "cpu" or (
        q_BNTH.device.type == "cuda"
        and q_BNTH.dtype in (torch.bfloat16, torch.float16)
        and q_BNTH.shape[-1] % 8 == 0
    )
    if has_kernel and not wants_gradient(q_BNTH, k_BKSH, v_BKSH):
        kernel = _kernel(q_BNTH, k_BKSH, v_BKSH)
        mixed_BNTH, lse_BNT, *_ = kernel(q_BNTH, k_BKSH, v_BKSH, is_causal=causal)
        return mixed_BNTH, lse_BNT.reshape(mixed_BNTH.shape[:3])
    return _attend_in_slices(q_BNTH, k_BKSH, v_BKSH, causal)


def _kernel(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """The fastest way here that gives the lse."""
    aten, cuda = torch.ops.aten, torch.backends.cuda
    if suits_tiles(q_BNTH, k_BKSH, v_BKSH):
        return attend_in_tiles
    if q_BNTH.device.type == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu
    inputs = cuda.SDPAParams(q_BNTH, k_BKSH, v_BKSH, None, 0.0, False, True)
    # cuDNN's is half again as fast, but it is built anew for each shape: not for single tokens.
    if q_BNTH.shape[2] >= _MANY_QUERIES and cuda.can_use_cudnn_attention(inputs):
        cudnn = aten._scaled_dot_product_cudnn_attention
        return partial(cudnn, attn_bias=None, compute_log_sumexp=True)
    return aten._scaled_dot_product_flash_attention


def _attend_in_slices(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula for a few queries at a time: 64 MiB of scores, however long the text."""
    batch, heads, queries, _ = q_BNTH.shape
    keys = k_BKSH.shape[2]
    rows = max(1, _SCORES_AT_ONCE // (batch * heads * keys))
    slices = []
    for start in range(0, queries, rows):
        end = min(start + rows, queries)
        seen = end if causal else keys
        piece = (k_BKSH[:, :, :seen], v_BKSH[:, :, :seen])
        slices.append(attend_piece(q_BNTH[:, :, start:end], *piece, causal))
    mixed, lse = zip(*slices, strict=True)
    return torch.cat(mixed, dim=2), torch.cat(lse, dim=2)


def merge_pieces(mixed: Sequence[torch.Tensor], lse: Sequence[torch.Tensor]) -> torch.Tensor:
    r"""Puts pieces of attention together, as if one softmax had run over all of their keys.

    Piece p counts $e^{\mathrm{lse}_p} / \sum_{p'} e^{\mathrm{lse}_{p'}}$: again a softmax, and like
    any other it must subtract the maximum first. With Qwen2's scores of hundreds, $e^{\mathrm{lse}}$
    itself has no float.

    Args:
        mixed: a mixed_BNTH for each piece.
        lse: a lse_BNT for each piece.

    Returns:
        mixed_BNTH, in the dtype of the first piece.

    Source: arXiv 2205.14135, section 3.1 (the same sum, over tiles).
    """
    weights_PBNT = torch.stack(tuple(lse)).softmax(0)
    merged_BNTH = weights_PBNT[0, ..., None] * mixed[0]
    for weight_BNT, piece_BNTH in zip(weights_PBNT[1:], mixed[1:], strict=True):
        merged_BNTH = merged_BNTH.addcmul(weight_BNT[..., None], piece_BNTH)
    return merged_BNTH.to(mixed[0].dtype)
