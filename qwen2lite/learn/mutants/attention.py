"""Wrong versions of `causal_mask` and `attend`. The docstring of each says what the mistake was."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2lite.model.attention import attend, causal_mask


def mask_one_late(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """The diagonal is one too far to the right: a query sees the token after it, which it has to
    predict. Training then looks splendid, and generating fails."""
    ones_TS = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return ones_TS.tril(diagonal=keys - queries + 1)


def mask_one_early(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """The diagonal is one too far to the left: a query doesn't see its own position, and the first
    sees nothing at all, which makes NaN."""
    ones_TS = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return ones_TS.tril(diagonal=keys - queries - 1)


def mask_from_the_start(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """The triangle starts at the top left, so the queries count as the *first* T positions. They
    are the last T of S: shift the diagonal by S - T (pytorch #108108)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()


def mask_of_the_hidden(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """True and False are swapped. Here True means "may look", as in PyTorch's fused kernel; in
    torch.nn.MultiheadAttention it means "is hidden", and the two are easily mixed up."""
    return ~causal_mask(queries, keys, device)


def mask_to_add(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """These are numbers to add to the scores, 0 and -inf. Wanted is bool, True where a query may
    look (a course mixed up the two: cs249r_book #1785)."""
    zeros_TS = torch.zeros(queries, keys, device=device)
    return zeros_TS.masked_fill(~causal_mask(queries, keys, device), float("-inf"))


def mask_on_the_cpu(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """The device that was asked for is not used, and on a GPU mask and scores don't meet."""
    return causal_mask(queries, keys, torch.device("cpu"))


def heads_repeated_in_turn(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`repeat` gives the key heads as 0, 1, 0, 1; query heads are grouped as 0, 0, 1, 1: that is
    `repeat_interleave`. Head n reads head n // (N/K) (the standard of ONNX had it so: onnx #7274)."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    return attend(q_BNTH, k_BKSH.repeat(1, groups, 1, 1), v_BKSH.repeat(1, groups, 1, 1), mask)


def keys_alone_in_turn(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The keys are written out by `repeat`, as 0, 1, 0, 1, and the values as 0, 0, 1, 1. So a head
    weighs its values by another head's keys: take `repeat_interleave` for both."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    v_BNSH = v_BKSH.repeat_interleave(groups, dim=1)
    return attend(q_BNTH, k_BKSH.repeat(1, groups, 1, 1), v_BNSH, mask)


def keys_of_one_head(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """All query heads meet key head 0, because only that one is taken or spread. Head n reads key head
    n // (N/K): write each of the K heads N/K times in a row, with `repeat_interleave`."""
    return attend(q_BNTH, k_BKSH[:, :1].expand_as(k_BKSH), v_BKSH, mask)


def keys_of_one_text(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """All texts of the batch meet the first text's keys, because only those are taken or spread. Each
    text has its own: leave the first dimension, B, as it is."""
    return attend(q_BNTH, k_BKSH[:1].expand_as(k_BKSH), v_BKSH, mask)


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
    """The queries are taken for the first T positions; with a cache they are the last T of S.
    `is_causal=True` of PyTorch's kernel does just that (pytorch #108108, #144858)."""
    return F.scaled_dot_product_attention(
        q_BNTH, k_BKSH, v_BKSH, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )


def no_mask(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
    """Without a mask every query sees all of the text, also what comes after it. Four models of
    transformers lost theirs in an update (transformers #48745)."""
    everything = torch.ones(q_BNTH.shape[2], k_BKSH.shape[2], dtype=torch.bool)
    return attend(q_BNTH, k_BKSH, v_BKSH, everything if mask is None else mask)


def mask_not_used(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask that was given is not used."""
    return attend(q_BNTH, k_BKSH, v_BKSH)


def mask_of_one_text(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The first text's mask hides in all texts. Texts of a batch differ in their padding, so a mask
    [B, 1, T, S] has rows for each: don't take `mask[0]`."""
    if mask is not None and mask.ndim == 4:
        mask = mask[:1]
    return attend(q_BNTH, k_BKSH, v_BKSH, mask)


def mask_of_the_groups(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask meets grouped scores, [B, K, N/K, T, S]. Dimensions are matched from the right, so
    those of a mask [B, 1, T, S] are one off, and text b's rows hide in key head b: give it the
    missing one, `mask[:, :, None]`."""
    if mask is not None and mask.ndim == 4:
        # As attend has no groups, this writes out which query heads the texts' rows fall on.
        mask = mask.transpose(0, 1).repeat_interleave(q_BNTH.shape[1] // k_BKSH.shape[1], dim=1)
    return attend(q_BNTH, k_BKSH, v_BKSH, mask)


def mask_besides_the_causal(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mask that was given and the causal one are used together. A mask that is given takes the
    causal one's place: who gives it says all that may be seen."""
    causal = causal_mask(q_BNTH.shape[2], k_BKSH.shape[2])
    return attend(q_BNTH, k_BKSH, v_BKSH, causal if mask is None else causal & mask)


def hidden_by_a_hundred(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """What the mask hides gets a score near -100. Others may be lower, and then the hidden wins: take
    minus infinity."""
    return _weigh(q_BNTH.float(), k_BKSH.float(), v_BKSH, mask, hidden=-100.0)


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


def scaled_by_all_heads(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are divided by the root of N·H, the width of all heads together. Each head has H
    numbers: it is √H (Machine-Learning-Collection #65)."""
    return attend(q_BNTH * q_BNTH.shape[1] ** -0.5, k_BKSH, v_BKSH, mask)


def softmax_over_queries(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The softmax runs over the queries. It runs over the keys, the last dimension: what one query
    spends is 1 in all (ng-video-lecture #42, where the loss looked better for it)."""
    return _weigh(q_BNTH.float(), k_BKSH.float(), v_BKSH, mask, over=-2)


def narrow_scores(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are computed in the inputs' own dtype. Qwen2's key biases reach 200, and such
    products overflow float16: go to float32 before q meets k (transformers #33317)."""
    return _weigh(q_BNTH, k_BKSH, v_BKSH, mask)


def _weigh(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, hidden: float = -math.inf, over: int = -1
) -> Tensor:
    """What `attend` does, with scores in the dtype of q and k."""
    k_BNSH, v_BNSH = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores_BNTS = q @ k_BNSH.transpose(-1, -2) * q.shape[-1] ** -0.5
    seen = causal_mask(q.shape[2], k.shape[2]) if mask is None else mask
    return scores_BNTS.masked_fill(~seen, hidden).softmax(over).to(v.dtype) @ v_BNSH


def scores_in_bfloat16(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The scores are computed in bfloat16. It doesn't overflow as float16 does, but has only 8 bits
    for the digits, and 1000 and 1002 become one number: go to float32 before q meets k."""
    part = narrow_scores if q_BNTH.dtype == torch.bfloat16 else attend
    return part(q_BNTH, k_BKSH, v_BKSH, mask)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "causal_mask": (
        mask_one_late,
        mask_one_early,
        mask_from_the_start,
        mask_of_the_hidden,
        mask_to_add,
        mask_on_the_cpu,
    ),
    "attend": (
        heads_repeated_in_turn,
        keys_alone_in_turn,
        keys_of_one_head,
        keys_of_one_text,
        sees_the_next,
        blind_to_itself,
        queries_at_the_start,
        no_mask,
        mask_not_used,
        mask_of_one_text,
        mask_of_the_groups,
        mask_besides_the_causal,
        hidden_by_a_hundred,
        not_scaled,
        scaled_by_size,
        scaled_by_all_heads,
        softmax_over_queries,
        # In bfloat16 both of these give the same answer; the first knows more about it.
        scores_in_bfloat16,
        narrow_scores,
    ),
}
"""The wrong versions of each part."""
