"""The contracts of lesson 23 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.model.attention import attend, fused_attend
from tests.learn.verdict import verdict


def mask_by_positions(queries, keys, device=None):
    at = torch.arange(keys, device=device)
    return at[None, :] <= at[keys - queries :, None]


def mask_by_rows(queries, keys, device=None):
    rows = [[s <= keys - queries + t for s in range(keys)] for t in range(queries)]
    return torch.tensor(rows, device=device)


def mask_by_cutting(queries, keys, device=None):
    return torch.ones(keys, keys, dtype=torch.bool, device=device).tril()[keys - queries :]


def attend_by_einsum(q, k, v, mask=None):
    groups = q.unflatten(1, (k.shape[1], -1)).float()
    scores = torch.einsum("bkgth,bksh->bkgts", groups, k.float()) / q.shape[-1] ** 0.5
    seen = mask_by_positions(q.shape[2], k.shape[2]) if mask is None else mask
    seen = seen[:, :, None] if seen.ndim == 4 else seen
    weights = torch.where(seen, scores, -torch.inf).softmax(-1).to(v.dtype)
    return torch.einsum("bkgts,bksh->bkgth", weights, v).flatten(1, 2)


def attend_by_kernel(q, k, v, mask=None):
    seen = mask_by_rows(q.shape[2], k.shape[2]) if mask is None else mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)


def attend_by_wide_kernel(q, k, v, mask=None):
    return attend_by_kernel(q.float(), k.float(), v.float(), mask).to(v.dtype)


def attend_hiding_by_much(q, k, v, mask=None):
    groups = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1).float() for x in (k, v))
    seen = mask_by_cutting(q.shape[2], k.shape[2]) if mask is None else mask
    scores = q.float() @ keys.mT / q.shape[-1] ** 0.5
    return (scores.masked_fill(~seen, -1e4).softmax(-1) @ values).to(v.dtype)


RIGHT = [
    ("causal_mask", mask_by_positions),
    ("causal_mask", mask_by_rows),
    ("causal_mask", mask_by_cutting),
    ("attend", attend_by_einsum),
    ("attend", attend_by_kernel),
    ("attend", attend_by_wide_kernel),
    ("attend", attend_hiding_by_much),
    ("attend", attend),
    ("attend", fused_attend),
    ("mended_attend", attend_by_kernel),
    ("first_overflow", lambda size: next(x for x in range(999) if x * x * size >= 65_520)),
    (
        "first_overflow",
        lambda size: next(
            x
            for x in range(999)
            if (torch.full((size,), float(x)).half() @ torch.full((size,), float(x)).half()).isinf()
        ),
    ),
    ("first_token_share", lambda weights: weights[:, 1:, 0].mean()),
    ("first_token_share", lambda weights: float(weights[:, 1:, 0].flatten().mean())),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def blind_after_a_cache(queries, keys, device=None):
    mask = mask_by_positions(queries, keys, device)
    return mask if queries == keys else ~mask


def keys_swapped(q, k, v, mask=None):
    return attend(q, k.flip(1), v, mask)


def keys_of_the_last_text(q, k, v, mask=None):
    return attend(q, k[-1:].expand_as(k), v, mask)


def masks_swapped(q, k, v, mask=None):
    return attend(q, k, v, mask if mask is None or mask.ndim < 4 else mask.flip(0))


def grouped_for_one_mask(q, k, v, mask=None):
    """`attend_by_einsum` without its line for masks of four dimensions."""
    groups = q.unflatten(1, (k.shape[1], -1)).float()
    scores = torch.einsum("bkgth,bksh->bkgts", groups, k.float()) / q.shape[-1] ** 0.5
    seen = mask_by_positions(q.shape[2], k.shape[2]) if mask is None else mask
    weights = torch.where(seen, scores, -torch.inf).softmax(-1).to(v.dtype)
    return torch.einsum("bkgts,bksh->bkgth", weights, v).flatten(1, 2)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("causal_mask", lambda t, s, device=None: torch.ones(s, t) > 0, "100, 110, 111"),
        ("causal_mask", lambda t, s, device=None: torch.ones(t, s), "float32 [3, 3]"),
        ("causal_mask", lambda t, s, device=None: [[True]], "returned a list"),
        ("causal_mask", lambda t, s: mask_by_rows(t, s), "TypeError"),
        ("causal_mask", blind_after_a_cache, "has the rows 00001, 00000"),
        ("attend", keys_swapped, "wanted [11, 11, 20, 20], got [10, 10, 21, 21]"),
        ("attend", keys_of_the_last_text, "Random texts: in text"),
        ("attend", masks_swapped, "each with a mask of its own: in text"),
        ("first_overflow", lambda size: 31, "61,504, which float16 can hold"),
        ("first_overflow", lambda size: 256, "255 would be too much already"),
        ("first_overflow", lambda size: 32, "32 · 32 · 128 is too much"),
        ("first_overflow", lambda size: 32.0, "returned 32.0, not a whole number"),
        ("first_token_share", lambda weights: weights[:, 1:, 0], "returned float32 [1, 2]"),
        ("first_token_share", lambda weights: "35 %", "one number was wanted"),
        ("first_token_share", lambda weights: weights.mean(), "the share is 0.35"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


@pytest.mark.parametrize("name", ["attend", "mended_attend"])
def test_a_mask_that_falls_on_the_groups_is_known_in_another_hand(name):
    result = verdict(name, grouped_for_one_mask)
    assert result.state == "wrong"
    assert "`mask[:, :, None]`" in result.reason
