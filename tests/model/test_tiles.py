"""Attention in tiles is attention, whatever the lengths are and wherever the tiles are cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.model import attention, pieces, tiles
from qwen2lite.model.attention import fused_attend
from qwen2lite.model.pieces import attend_piece, fused_attend_piece
from qwen2lite.model.tiles import attend_in_tiles, suits_tiles

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN"
)


def some(queries, keys, heads=4, kv_heads=2, batch=1, seed=0, size=3.0):
    generator = torch.Generator().manual_seed(seed)

    def drawn(heads, length):
        return torch.randn(batch, heads, length, 16, generator=generator).bfloat16()

    return size * drawn(heads, queries), size * drawn(kv_heads, keys), drawn(kv_heads, keys)


def agree(inputs, causal, rtol=0.0):
    """lse to float32; the weights are rounded to bfloat16 before they are mixed, and so is the sum."""
    mixed, lse = attend_in_tiles(*inputs, causal)
    wanted, wanted_lse = attend_piece(*inputs, causal)
    assert mixed.dtype == torch.bfloat16 and lse.dtype == torch.float32
    torch.testing.assert_close(lse, wanted_lse, rtol=rtol, atol=2e-5)
    torch.testing.assert_close(mixed.float(), wanted, rtol=2**-7, atol=2**-6)


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(1, 40), earlier=st.integers(0, 60), groups=st.integers(1, 3),
    rows=st.integers(1, 30), keys=st.integers(1, 30), causal=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_cut_gives_attention(queries, earlier, groups, rows, keys, causal, seed):
    inputs = some(queries, earlier + queries, 2 * groups, 2, batch=2, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_ROWS", rows)
        patch.setattr(tiles, "_KEYS", keys)
        agree(inputs, causal)


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (2000, 2100), (256, 5000)])
@pytest.mark.parametrize("causal", [True, False])
def test_lengths_of_texts(queries, keys, causal):
    agree(some(queries, keys), causal)


def test_scores_that_spread_by_hundreds():
    """Most weights are below what float32 holds, and the exact ones are 0 as well."""
    inputs = some(300, 2500, size=30.0)
    q_BNTH, k_BKSH, _ = inputs
    scores = q_BNTH.float() @ k_BKSH.float().repeat_interleave(2, dim=1).mT / 4
    assert (scores.softmax(-1) == 0).float().mean() > 0.2
    agree(inputs, True, rtol=2**-21)  # sums of thousands: four units in the last place


def test_large_scores_keep_their_differences():
    """Two keys score 512 and 513, which bfloat16 takes for the same number."""
    q_BNTH = torch.full((1, 1, 300, 16), 32.0).bfloat16()
    k_BKSH = torch.full((1, 1, 300, 16), 4.0).bfloat16()
    k_BKSH[0, 0, 7, 0] = 4.125
    v_BKSH = torch.zeros(1, 1, 300, 16).bfloat16()
    v_BKSH[0, 0, 7] = 1
    agree((q_BNTH, k_BKSH, v_BKSH), True)
    share = torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 299)
    mixed, _ = attend_in_tiles(q_BNTH, k_BKSH, v_BKSH, False)
    torch.testing.assert_close(mixed.float(), share.expand(mixed.shape), rtol=2**-7, atol=0)


def test_only_many_queries_in_bfloat16_that_learn_nothing_are_cut(monkeypatch):
    monkeypatch.setattr(tiles, "_tiles_are_faster", lambda: True)
    inputs = some(300, 300)
    assert suits_tiles(*inputs)
    assert not suits_tiles(*some(40, 300))
    assert not suits_tiles(*(tensor.float() for tensor in inputs))
    assert not suits_tiles(inputs[0], inputs[1].float(), inputs[2])
    assert not suits_tiles(inputs[0], inputs[1].requires_grad_(), inputs[2])
    with torch.no_grad():
        assert suits_tiles(*inputs)
    with monkeypatch.context() as compiling:
        compiling.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not suits_tiles(*some(300, 300))
    monkeypatch.setattr(tiles, "_tiles_are_faster", lambda: False)
    assert not suits_tiles(*some(300, 300))


@pytest.mark.parametrize("queries", [300, 700])
def test_whole_attention_and_pieces_take_what_is_faster(monkeypatch, queries):
    inputs, piece, cut = some(queries, 700), some(700, 700), []

    def noted(*arguments, **named):
        cut.append(arguments)
        return attend_in_tiles(*arguments, **named)

    monkeypatch.setattr(tiles, "_tiles_are_faster", lambda: False)
    kernels = fused_attend(*inputs), *fused_attend_piece(*piece, causal=True)
    monkeypatch.setattr(tiles, "_tiles_are_faster", lambda: True)
    monkeypatch.setattr(attention, "attend_in_tiles", noted)
    monkeypatch.setattr(pieces, "attend_in_tiles", noted)
    assert not cut
    got = fused_attend(*inputs), *fused_attend_piece(*piece, causal=True)
    assert len(cut) == 2
    for tensor, wanted in zip(got, kernels, strict=True):
        torch.testing.assert_close(tensor, wanted, rtol=2**-6, atol=2**-6)


def test_a_release_without_the_private_operation_keeps_the_kernel(monkeypatch):
    def gone(*arguments):
        raise AttributeError("_linear_pointwise")

    monkeypatch.setattr(tiles, "onednn_linear", gone)
    tiles._tiles_are_faster.cache_clear()
    try:
        assert not suits_tiles(*some(300, 300))
    finally:
        tiles._tiles_are_faster.cache_clear()
