r"""Attention on a CPU as ordinary products, a tile of the scores at a time.

PyTorch's own kernel leaves a processor with bfloat16 instructions but without AMX half idle: on two
cores of an AMD EPYC it computes 180 GFLOP/s, and oneDNN multiplies the same matrices at 480 in float32
and at 930 in bfloat16. So here attention is two products around a softmax over some 2,000 keys, and
the tiles are put together by their lse as they come. Scores are float32, as in the kernel: Qwen2's
reach hundreds, where bfloat16 knows every second number only.
"""

import functools
import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F

from qwen2lite.model.onednn import faster_with_onednn, onednn_linear

_ROWS, _KEYS = 896, 2048
"""Of a tile; a row is a query of one of the heads that share the keys. Its scores take 7 MiB."""
_LEAST = -100.0
_MANY_QUERIES = 256


def attend_in_tiles(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in bfloat16, with the lse of its scores.

    Args:
        q_BNTH: rotated queries.
        k_BKSH: rotated keys.
        v_BKSH: values.
        is_causal: the queries are the last T of the S positions and see none after their own.

    Returns:
        mixed_BNTH in bfloat16 and lse_BNT in float32.

    Source: arXiv 2205.14135, section 3.1.
    """
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    q_BKGTH = q_BNTH.unflatten(1, (k_BKSH.shape[1], -1))
    mixed_BKGTH = torch.empty_like(q_BKGTH)
    lse_BKGT = torch.empty(q_BKGTH.shape[:-1])
    at_once = max(1, _ROWS // q_BKGTH.shape[2])
    later = torch.full((at_once, at_once - 1), float("-inf")).triu() if is_causal else None
    for b, k in product(range(k_BKSH.shape[0]), range(k_BKSH.shape[1])):
        k_SH, v_SH = k_BKSH[b, k].float(), v_BKSH[b, k]
        for start in range(0, queries, at_once):
            some = (b, k, slice(None), slice(start, start + at_once))
            q_GQH = q_BKGTH[some].float() * q_BNTH.shape[-1] ** -0.5
            seen = keys - queries + start + q_GQH.shape[1] if is_causal else keys
            mixed_RH, lse_R = _attend(q_GQH, k_SH[:seen], v_SH[:seen], later)
            mixed_BKGTH[some] = mixed_RH.view_as(q_GQH)
            lse_BKGT[some] = lse_R.view(q_GQH.shape[:-1])
    return mixed_BKGTH.flatten(1, 2), lse_BKGT.flatten(1, 2)


def _attend(
    q_GQH: torch.Tensor, k_SH: torch.Tensor, v_SH: torch.Tensor, later: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """mixed_RH and lse_R of some queries of all heads that share these keys."""
    tiles = _tiles(q_GQH, k_SH, v_SH, later)
    mixed_RH, lse_R = next(tiles)
    for mixed_tile_RH, lse_tile_R in tiles:
        lse_both_R = torch.logaddexp(lse_R, lse_tile_R)
        mixed_RH = mixed_RH * (lse_R - lse_both_R).exp()[:, None]
        share_R = (lse_tile_R - lse_both_R).exp()
        mixed_RH = mixed_RH.addcmul(mixed_tile_RH, share_R[:, None])
        lse_R = lse_both_R
    return mixed_RH, lse_R


def _tiles(
    q_GQH: torch.Tensor, k_SH: torch.Tensor, v_SH: torch.Tensor, later: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """mixed_RH and lse_R of the rows over some keys at a time; every row sees some of them.

    `later` hides from the first query all of the last keys but one, from the last none.
    """
    queries, keys = q_GQH.shape[1], len(k_SH)
    seen_by_all = keys if later is None else keys - queries + 1
    for start in range(0, seen_by_all, _KEYS):
        end = start + _KEYS if start + _KEYS < seen_by_all else keys
        scores_RC = onednn_linear(q_GQH.flatten(0, 1), k_SH[start:end])
        if later is not None and end > seen_by_all:
            scores_GQC = scores_RC.unflatten(0, (-1, queries))
            scores_GQC[..., seen_by_all - start :] += later[:queries, : queries - 1]
        weights_RC, lse_R = _softmax(scores_RC)
        yield weights_RC.to(v_SH.dtype) @ v_SH[start:end], lse_R


def _softmax(scores_RC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax in place, and its lse, by powers of 2, at which PyTorch is faster than at those of e.

    Qwen2's scores spread so far that many weights would be denormal, at which a processor is slow:
    what is less than 2^-100 of the largest is 0.
    """
    largest_R = scores_RC.amax(-1)
    scores_RC.sub_(largest_R[:, None]).mul_(1 / math.log(2))
    weights_RC = F.threshold(scores_RC, _LEAST, float("-inf"), inplace=True).exp2_()
    sum_R = weights_RC.sum(-1)
    return weights_RC.div_(sum_R[:, None]), largest_R + sum_R.log()


def suits_tiles(q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor) -> bool:
    """Whether these are many queries in bfloat16 on a CPU that is faster so, nothing learns, and no
    compiler is looking, which has its own ways."""
    if q_BNTH.device.type != "cpu" or q_BNTH.shape[2] < _MANY_QUERIES:
        return False
    inputs = (q_BNTH, k_BKSH, v_BKSH)
    narrow = all(tensor.dtype == torch.bfloat16 for tensor in inputs)
    eager = not torch.compiler.is_compiling()
    return narrow and eager and not wants_gradient(*inputs) and _tiles_are_faster()


def wants_gradient(*inputs: torch.Tensor) -> bool:
    """Whether a backward pass is to go through what is computed from these."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)


@functools.cache
def _tiles_are_faster() -> bool:
    """Tries a text of 512 tokens both ways; once a process."""
    q_BNTH, k_BKSH = (torch.ones(1, n, 512, 64, dtype=torch.bfloat16) for n in (14, 2))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    inputs = (q_BNTH, k_BKSH, k_BKSH, True)
    return faster_with_onednn(
        partial(attend_in_tiles, *inputs), lambda: kernel(*inputs[:3], is_causal=True)
    )
