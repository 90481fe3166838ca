"""The contracts of the long-context parts: other right answers pass, wrong ones hear what is wrong.

That each mutant is caught and named is tested with all others, in test_contracts.py.
"""

import math

import pytest
import torch
from torch import nn

from qwen2lite.model.attention import GroupedQueryAttention
from qwen2lite.model.dca import DualChunkAttention, dca_attend, dca_positions
from qwen2lite.model.pieces import merge_pieces
from tests.learn.verdict import verdict


def ramp_by_loop(
    head_dim,
    rope_theta,
    original_max_position_embeddings,
    beta_fast=32.0,
    beta_slow=1.0,
    truncate=True,
):
    def pair(turns):
        wavelength = original_max_position_embeddings / turns
        return head_dim / 2 * math.log(wavelength / (2 * math.pi), rope_theta)

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low = max(low, 0)
    if high >= head_dim:
        high = head_dim - 1
    width = high - low if high > low else 0.001
    values = [(i - low) / width for i in range(head_dim // 2)]
    return torch.tensor([min(max(v, 0.0), 1.0) for v in values], device="cpu")


def yarn_by_lerp(
    frequencies_R,
    rope_theta,
    factor,
    original_max_position_embeddings,
    attention_factor=None,
    **ramp,
):
    if factor < 1:
        raise ValueError(factor)
    size = 2 * len(frequencies_R)
    ramp_R = ramp_by_loop(size, rope_theta, original_max_position_embeddings, **ramp)
    grown = 1 if factor == 1 else 1 + math.log(factor) / 10
    slowed_R = torch.lerp(frequencies_R, frequencies_R / factor, ramp_R)
    return slowed_R, grown if attention_factor is None else attention_factor


def positions_by_lists(positions, chunk_size, local_size):
    length = chunk_size - local_size
    own = [p - p // length * length for p in positions.tolist()]
    following = [chunk_size if p + length > chunk_size else p + length for p in own]
    last = chunk_size if 2 * length - 1 > chunk_size else 2 * length - 1
    rows = (own, following, [last] * len(own))
    return tuple(torch.tensor(row, device=positions.device) for row in rows)


def merged_one_by_one(mixed, lse):
    """With a running maximum, as a kernel does it."""
    top, total, merged = lse[0].float(), torch.ones_like(lse[0].float()), mixed[0].float()
    for one, piece in zip(lse[1:], mixed[1:], strict=True):
        highest = torch.maximum(top, one.float())
        old, new = total * (top - highest).exp(), (one.float() - highest).exp()
        share = (new / (old + new))[..., None]
        merged = merged * (1 - share) + piece.float() * share
        top, total = highest, old + new
    return merged.to(mixed[0].dtype)


def merged_by_logaddexp(mixed, lse):
    everything = torch.stack(tuple(lse)).logsumexp(0)
    pairs = zip(lse, mixed, strict=True)
    return sum((one - everything).exp()[..., None].to(piece) * piece for one, piece in pairs)


def attended_in_one_softmax(queries, k, v, chunk_len, merge):
    """Dense, and without merging."""
    groups = queries[0].shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    at = torch.arange(k.shape[2])
    mine = at[k.shape[2] - queries[0].shape[2] :, None]
    back = mine // chunk_len - at // chunk_len
    scores = torch.where(back == 1, queries[1] @ k.mT, queries[2] @ k.mT)
    scores = torch.where(back <= 0, queries[0] @ k.mT, scores) / k.shape[-1] ** 0.5
    return scores.masked_fill(at > mine, -torch.inf).softmax(-1) @ v


def attended_row_by_row(queries, k, v, chunk_len, merge):
    """Merges once a token: in other pieces than the reference."""
    groups, start = queries[0].shape[1] // k.shape[1], k.shape[2] - queries[0].shape[2]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    rows = []
    for t in range(start, k.shape[2]):
        own = t // chunk_len * chunk_len
        cuts = [(0, own, t + 1), (1, max(own - chunk_len, 0), own), (2, 0, max(own - chunk_len, 0))]
        pieces = []
        for q, first, end in cuts:
            if first < end:
                asked = queries[q][:, :, t - start, None] @ k[:, :, first:end].mT
                asked = asked / k.shape[-1] ** 0.5
                pieces.append((asked.softmax(-1) @ v[:, :, first:end], asked.logsumexp(-1)))
        rows.append(merge(*zip(*pieces, strict=True)))
    return torch.cat(rows, dim=2)


class LayerInAnotherOrder(GroupedQueryAttention):
    """Queries before keys, growth on the scores' other side, from afar to near."""

    def __init__(self, config, apply_rope, dca_attend, merge_pieces):
        super().__init__(config, apply_rope, dca_attend)
        self.chunks, self.merge = config.dual_chunk_attention_config, merge_pieces

    def forward(self, x, cos, sin, mask=None, cache=None, layer=0):
        if mask is not None:
            raise ValueError("no mask")
        q, v = self.split_heads(self.q_proj(x)), self.split_heads(self.v_proj(x))
        turned = [self.apply_rope(q, cos[i], sin[i]) for i in (2, 1, 0)][::-1]
        k = self.apply_rope(self.split_heads(self.k_proj(x)), cos[0], sin[0])
        if cache is not None:
            k, v = cache.update(layer, k, v)
        trained = self.chunks["original_max_position_embeddings"]
        if trained:
            at = range(k.shape[2] - x.shape[1], k.shape[2])
            grown = [max(1, 1 + math.log((t + 1) / trained) / 10) ** 2 for t in at]
            turned = [one * torch.tensor(grown).to(one)[:, None] for one in turned]
        chunk_len = self.chunks["chunk_size"] - self.chunks["local_size"]
        mixed = self.attend(turned, k, v, chunk_len, self.merge)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2))


RIGHT = [
    ("yarn_ramp", ramp_by_loop),
    ("yarn", yarn_by_lerp),
    ("dca_positions", positions_by_lists),
    ("merge_pieces", merged_one_by_one),
    ("merge_pieces", merged_by_logaddexp),
    ("dca_attend", attended_in_one_softmax),
    ("dca_attend", attended_row_by_row),
    ("dca", LayerInAnotherOrder),
    ("length_scale", lambda n, trained: (n / trained).clamp(min=1).log() / 10 + 1),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("yarn_ramp", lambda size, *_: torch.zeros(size), "returned float32 [16], and float32 [8]"),
        ("yarn_ramp", lambda size, theta, length: ramp_by_loop(size, theta, length), "TypeError"),
        ("yarn", lambda f, t, **_: f, "returned float32 [8], and a pair was wanted"),
        ("yarn", lambda f, t, **_: (f.double(), 1.0), "float64 [8], and float32 [8]"),
        ("yarn", lambda f, t, **_: (f, torch.ones(1)), "as its second, float32 [1]"),
        ("yarn", lambda f, t, **_: (f * 0.9, 1.0), "are multiplied by [0.9, 0.9"),
        (
            "yarn",
            lambda f, t, **s: yarn_by_lerp(f, t, **{**s, "beta_fast": 32}),
            "With heads of 20",
        ),
        (
            "yarn",
            lambda f, t, **s: yarn_by_lerp(f, t, **{**s, "factor": max(s["factor"], 1)}),
            "should raise a ValueError",
        ),
        ("dca_positions", lambda p, c, w: p % (c - w), "returned int64 [15], and three tensors"),
        ("dca_positions", lambda p, c, w: (p % (c - w),) * 2, "three tensors were wanted"),
        ("dca_positions", lambda p, c, w: (p.float(),) * 3, "float32 [15], and int64 [15]"),
        (
            "dca_positions",
            lambda p, c, w: dca_positions(p + 1, c, w),
            "intra is [1, 2, 3, 4, 0, 1,",
        ),
        ("merge_pieces", lambda mixed, lse: mixed, "returned a tuple"),
        ("merge_pieces", lambda mixed, lse: lse[0], "float32 [1, 1, 2], and float32 [1, 1, 2, 1]"),
        ("merge_pieces", lambda mixed, lse: mixed[0], "wanted [17.5, 15], got [10, 10]"),
        (
            "merge_pieces",
            lambda mixed, lse: merge_pieces(mixed[:2], lse[:2]),
            "don't make one softmax",
        ),
        (
            "merge_pieces",
            lambda mixed, lse: merge_pieces(mixed, [one.detach() for one in lse]),
            "lets no gradient through to a lse",
        ),
        ("dca_attend", lambda q, k, v, s, merge: q[0][:, :1], "[2, 1, 7, 4], and float32"),
        (
            "dca_attend",
            lambda q, k, v, s, merge: attended_in_one_softmax(q, k, v, s + 1, merge),
            "6 tokens in chunks of 2",
        ),
        (
            "dca_attend",
            lambda q, k, v, s, merge: attended_in_one_softmax(q, k, v.flip(2), s, merge),
            "wanted [1, 1.5, 1.8",
        ),
        ("dca", lambda config, *_: nn.Linear(24, 24), "lacks"),
        (
            "dca",
            lambda config, rope, attend, merge: DualChunkAttention(
                config, lambda x, cos, sin: x, attend, merge
            ),
            "wrong from token 1 on",
        ),
        ("length_scale", lambda n, trained: 1.0, "returned a float, and a tensor float32 [6]"),
        ("length_scale", lambda n, trained: n.float(), "should have [1, 1, 1, 1.0693"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_heads_in_turn_are_told_apart():
    def in_turn(queries, k, v, chunk_len, merge):
        groups = queries[0].shape[1] // k.shape[1]
        heads = [n % k.shape[1] for n in range(groups * k.shape[1])]
        return dca_attend(queries, k[:, heads], v[:, heads], chunk_len, merge)

    assert "query head n read key head" in verdict("dca_attend", in_turn).reason
