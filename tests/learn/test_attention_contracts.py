"""The contracts of lesson 23 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F

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
    weights = torch.where(seen, scores, -torch.inf).softmax(-1).to(v.dtype)
    return torch.einsum("bkgts,bksh->bkgth", weights, v).flatten(1, 2)


def attend_by_kernel(q, k, v, mask=None):
    seen = mask_by_rows(q.shape[2], k.shape[2]) if mask is None else mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)


RIGHT = [
    ("causal_mask", mask_by_positions),
    ("causal_mask", mask_by_rows),
    ("causal_mask", mask_by_cutting),
    ("attend", attend_by_einsum),
    ("attend", attend_by_kernel),
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


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("causal_mask", lambda t, s, device=None: torch.ones(s, t) > 0, "100, 110, 111"),
        ("causal_mask", lambda t, s, device=None: torch.ones(t, s), "float32 [3, 3]"),
        ("causal_mask", lambda t, s, device=None: [[True]], "returned a list"),
        ("causal_mask", lambda t, s: mask_by_rows(t, s), "TypeError"),
        ("causal_mask", blind_after_a_cache, "has the rows 00001, 00000"),
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
