"""Wrong versions of `attend`. The docstring of each says what the mistake was."""

from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.attention import attend, causal_mask

Tensor = torch.Tensor


def heads_repeated_in_turn(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`repeat` gives the key heads as 0, 1, 0, 1; query heads are grouped as 0, 0, 1, 1: that is
    `repeat_interleave`. Head n reads head n // (N/K)."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    return attend(q_BNTH, k_BKSH.repeat(1, groups, 1, 1), v_BKSH.repeat(1, groups, 1, 1), mask)


def sees_the_next(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask is off by one, and a query sees the token after it, which it has to predict."""
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    late = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries + 1)
    return attend(q_BNTH, k_BKSH, v_BKSH, late if mask is None else mask)


def blind_to_itself(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask is off by one, and a query doesn't see its own position."""
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    early = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - 1)
    return attend(q_BNTH, k_BKSH, v_BKSH, early if mask is None else mask)


def queries_at_the_start(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The queries are taken for the first T positions; with a cache they are the last T of S."""
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    first = torch.ones(queries, keys, dtype=torch.bool).tril()
    return attend(q_BNTH, k_BKSH, v_BKSH, first if mask is None else mask)


def no_mask(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
    """Without a mask every query sees all of the text, also what comes after it."""
    everything = torch.ones(q_BNTH.shape[2], k_BKSH.shape[2], dtype=torch.bool)
    return attend(q_BNTH, k_BKSH, v_BKSH, everything if mask is None else mask)


def mask_not_used(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask that was given is not used."""
    return attend(q_BNTH, k_BKSH, v_BKSH)


def not_scaled(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are not divided by the square root of H."""
    return attend(q_BNTH * q_BNTH.shape[-1] ** 0.5, k_BKSH, v_BKSH, mask)


def scaled_by_size(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are divided by H; they should be divided by its square root."""
    return attend(q_BNTH * q_BNTH.shape[-1] ** -0.5, k_BKSH, v_BKSH, mask)


def softmax_over_queries(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The softmax runs over the queries. It runs over the keys, the last dimension."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH = k_BKSH.repeat_interleave(groups, dim=1)
    v_BNSH = v_BKSH.repeat_interleave(groups, dim=1)
    scores_BNTS = q_BNTH.float() @ k_BNSH.float().transpose(-1, -2) * q_BNTH.shape[-1] ** -0.5
    seen = causal_mask(q_BNTH.shape[2], k_BKSH.shape[2]) if mask is None else mask
    weights_BNTS = scores_BNTS.masked_fill(~seen, float("-inf")).softmax(-2)
    return weights_BNTS.to(v_BNSH.dtype) @ v_BNSH


def narrow_scores(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are computed in the inputs' own dtype. Qwen2's key biases reach 200, and such
    products overflow float16: go to float32 before q meets k."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH = k_BKSH.repeat_interleave(groups, dim=1)
    v_BNSH = v_BKSH.repeat_interleave(groups, dim=1)
    scores_BNTS = q_BNTH @ k_BNSH.transpose(-1, -2) * q_BNTH.shape[-1] ** -0.5
    seen = causal_mask(q_BNTH.shape[2], k_BKSH.shape[2]) if mask is None else mask
    return scores_BNTS.masked_fill(~seen, float("-inf")).softmax(-1) @ v_BNSH


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "attend": (
        heads_repeated_in_turn,
        sees_the_next,
        blind_to_itself,
        queries_at_the_start,
        no_mask,
        mask_not_used,
        not_scaled,
        scaled_by_size,
        softmax_over_queries,
        narrow_scores,
    )
}
"""The wrong versions of each part."""
