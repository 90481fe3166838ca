"""Dual chunks: positions by figure, against a dense reference, against full attention and itself."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.model import pieces
from qwen2lite.model.attention import attend
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.dca import dca_attend, dca_distances, dca_positions, length_scale
from qwen2lite.model.parts import Parts
from qwen2lite.model.pieces import attend_piece, fused_attend_piece, merge_pieces
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.model.rope import rotary_frequencies

SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rope_theta": 100.0,
    "initializer_range": 0.4,
    "max_position_embeddings": 4096,
}
# Qwen2.5-1M report, figure 5(a): the rows of the position matrix for 15 tokens.
FIGURE = """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
5 4 3 2 1 0
6 5 4 3 2 1 0
7 6 5 4 3 2 1 0
7 6 5 4 3 3 2 1 0
7 6 5 4 3 4 3 2 1 0
7 6 5 4 3 5 4 3 2 1 0
7 6 5 4 3 6 5 4 3 2 1 0
7 6 5 4 3 7 6 5 4 3 2 1 0
7 6 5 4 3 7 6 5 4 3 3 2 1 0
7 6 5 4 3 7 6 5 4 3 4 3 2 1 0
"""

sizes_of_chunks = st.integers(2, 12).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(1, size - 1))
)


def precise_frequencies(head_dim: int, rope_theta: float) -> torch.Tensor:
    """In float64, so that a true distance is the same angle wherever in the text it lies."""
    exponents_R = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
    return rope_theta**-exponents_R


def model_with(chunks: dict | None, parts: Parts | None = None, **sizes) -> Qwen2:
    torch.manual_seed(0)
    config = Qwen2Config(**SIZES | sizes, dual_chunk_attention_config=chunks)
    parts = parts or Parts(rotary_frequencies=precise_frequencies)
    model = Qwen2(config, parts).double().eval()
    for layer in model.model.layers:
        for projection in ("q_proj", "k_proj", "v_proj"):
            torch.nn.init.normal_(getattr(layer.self_attn, projection).bias)
    return model


def text(length: int) -> torch.Tensor:
    return torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(length))


def distance_by_hand(query: int, key: int, size: int, local: int) -> int:
    """The published rules, one pair at a time."""
    chunk_len = size - local
    chunks_back = query // chunk_len - key // chunk_len
    if chunks_back == 0:
        place = query % chunk_len
    elif chunks_back == 1:
        place = min(chunk_len + query % chunk_len, size)
    else:
        place = min(2 * chunk_len - 1, size)
    return place - key % chunk_len


def test_the_position_matrix_of_figure_5a():
    rows = [[int(n) for n in line.split()] for line in FIGURE.strip().splitlines()]
    distances_TS = dca_distances(15, chunk_size=7, local_size=2)
    assert [row[: i + 1] for i, row in enumerate(distances_TS.tolist())] == rows
    assert (
        distances_TS.triu(1) + torch.ones(15, 15).tril() == torch.ones(15, 15).tril()
    ).all() or (distances_TS[torch.ones(15, 15).triu(1).bool()] == -1).all()


def test_the_papers_example_but_for_its_last_place():
    """Paper: s = 6, c = 10 gives successive places 6 7 8 9 9 9, with c - 1 as the last. The code's
    chunk_size is that c - 1."""
    intra_T, successive_T, inter_T = dca_positions(torch.arange(12), chunk_size=9, local_size=3)
    assert intra_T.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert successive_T.tolist() == [6, 7, 8, 9, 9, 9] * 2
    assert inter_T.tolist() == [9] * 12


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sizes_of_chunks, st.integers(1, 60))
def test_distances_are_the_rules_and_what_they_promise(sizes, length):
    distances_TS = dca_distances(length, *sizes)
    for query in range(length):
        for key in range(query + 1):
            got = int(distances_TS[query, key])
            assert got == distance_by_hand(query, key, *sizes)
            assert 0 <= got <= sizes[0]
            if query - key <= min(sizes[1], sizes[0] - sizes[1]):
                assert got == query - key


def dense(q_BNTH, k_BKSH, v_BKSH, distances_TS, frequencies_R):
    """Attention from a matrix of distances: each pair's query is turned by its own distance, and
    the keys not at all."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    first, second = (half[..., None, :] for half in q_BNTH.chunk(2, dim=-1))
    angles_TSR = distances_TS[..., None] * frequencies_R
    cos_TSR, sin_TSR = angles_TSR.cos(), angles_TSR.sin()
    turned = torch.cat((first * cos_TSR - second * sin_TSR, second * cos_TSR + first * sin_TSR), -1)
    scores_BNTS = torch.einsum("bntsh,bnsh->bnts", turned, k_BNSH) * q_BNTH.shape[-1] ** -0.5
    weights = scores_BNTS.masked_fill(distances_TS < 0, -math.inf).softmax(-1)
    return weights @ v_BNSH


def turned(x_BNTH, places_T, frequencies_R):
    angles_TR = places_T[:, None] * frequencies_R
    first, second = x_BNTH.chunk(2, dim=-1)
    cos_TR, sin_TR = angles_TR.cos(), angles_TR.sin()
    return torch.cat((first * cos_TR - second * sin_TR, second * cos_TR + first * sin_TR), -1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes_of_chunks, st.integers(1, 45), st.integers(1, 45))
def test_the_layer_equals_the_dense_reference(sizes, length, last):
    """All queries, or only the last of them with the others in a cache."""
    generator = torch.Generator().manual_seed(length)
    q_BNTH, k_BKTH, v_BKTH = (
        torch.randn(2, heads, length, 8, dtype=torch.float64, generator=generator)
        for heads in (6, 2, 2)
    )
    frequencies_R = precise_frequencies(8, 100.0)
    want = dense(q_BNTH, k_BKTH, v_BKTH, dca_distances(length, *sizes), frequencies_R)
    places = dca_positions(torch.arange(length), *sizes)
    queries = [turned(q_BNTH, place_T, frequencies_R)[:, :, -last:] for place_T in places]
    k_BKSH = turned(k_BKTH, places[0], frequencies_R)
    got = dca_attend(queries, k_BKSH, v_BKTH, sizes[0] - sizes[1], merge_pieces)
    assert (got - want[:, :, -last:]).abs().max() <= 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes_of_chunks, st.lists(st.integers(1, 9), min_size=1, max_size=7), st.sampled_from([0, 5])
)
def test_any_split_into_prefill_and_decode_gives_the_same_logits(sizes, cuts, original):
    chunks = {"chunk_size": sizes[0], "local_size": sizes[1]}
    model = model_with(chunks | {"original_max_position_embeddings": original})
    ids_BT = text(sum(cuts))
    cache = model.new_cache(sum(cuts), batch_size=2)
    with torch.inference_mode():
        whole = model(ids_BT)
        got = torch.cat([model(piece, cache) for piece in ids_BT.split(cuts, dim=1)], dim=1)
    assert (got - whole).abs().max() <= 1e-11


@pytest.mark.parametrize(("size", "local"), [(7, 2), (16, 7), (9, 1), (40, 16)])
def test_equal_to_full_attention_up_to_one_more_than_a_chunk(size, local):
    chunked = model_with({"chunk_size": size, "local_size": local})
    full = model_with(None)
    with torch.inference_mode():
        ids_BT = text(size + 2)
        off_T = (chunked(ids_BT) - full(ids_BT)).abs().amax((0, 2))
    assert off_T[: size + 1].max() <= 1e-12
    assert off_T[size + 1] > 1e-6


def test_with_half_a_chunk_as_window_equality_ends_one_token_earlier():
    chunked, full = model_with({"chunk_size": 8, "local_size": 4}), model_with(None)
    with torch.inference_mode():
        off_T = (chunked(text(10)) - full(text(10))).abs().amax((0, 2))
    assert off_T[:8].max() <= 1e-12
    assert off_T[8] > 1e-6


def test_the_cache_holds_each_key_turned_to_its_place_in_its_chunk():
    """So nothing in it ever has to be changed."""
    model = model_with({"chunk_size": 5, "local_size": 2}, num_hidden_layers=1)
    ids_BT = torch.full((1, 9), 7)
    cache = model.new_cache(9)
    with torch.inference_mode():
        model(ids_BT, cache)
    keys_SH = cache._keys[0][0, 0]
    assert torch.equal(keys_SH[:3], keys_SH[3:6])
    assert torch.equal(keys_SH[:3], keys_SH[6:9])
    assert not torch.allclose(keys_SH[0], keys_SH[1])


def test_length_scale_by_hand():
    lengths = torch.tensor([1, 16, 32, 32 * 4])
    want = torch.tensor([1.0, 1.0, 1.0, 0.1 * math.log(4) + 1])
    assert torch.allclose(length_scale(lengths, 32), want, rtol=1e-6)


def test_length_scaling_is_the_published_one_on_the_last_token():
    """Published: keys and queries of the whole prompt times m, so scores times m². In a model of one
    layer the last token's logits are equal; the first token's aren't touched by ours."""
    chunks = {"chunk_size": 9, "local_size": 3}
    ours = model_with(chunks | {"original_max_position_embeddings": 11}, num_hidden_layers=1)
    plain = model_with(chunks, num_hidden_layers=1)
    published = model_with(chunks, num_hidden_layers=1)
    factor = 0.1 * math.log(50 / 11) + 1
    with torch.inference_mode():
        attention = published.model.layers[0].self_attn
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight *= factor
            projection.bias *= factor
        logits, scaled, unscaled = (model(text(50)) for model in (ours, published, plain))
    assert (logits[:, -1] - scaled[:, -1]).abs().max() <= 1e-5  # length_scale is float32
    assert (logits[:, -1] - unscaled[:, -1]).abs().max() > 1e-3
    assert (logits[:, :11] - unscaled[:, :11]).abs().max() <= 1e-12
    assert (logits[:, 11:] - unscaled[:, 11:]).abs().amax((0, 2)).min() > 1e-6


def test_yarns_frequencies_are_not_used_with_chunks():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    chunks = {"chunk_size": 9, "local_size": 3}
    with torch.inference_mode():
        both = model_with(chunks, rope_scaling=scaling)(text(30))
        assert torch.equal(both, model_with(chunks)(text(30)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_models_agree_with_the_wide_one(dtype):
    chunks = {"chunk_size": 13, "local_size": 5, "original_max_position_embeddings": 30}
    wide = model_with(chunks, Parts(), initializer_range=0.1)
    narrow = model_with(chunks, Parts(), initializer_range=0.1).to(dtype)
    with torch.inference_mode():
        want, got = wide(text(70)), narrow(text(70))
    assert got.dtype == dtype
    off = (got - want).square().mean().sqrt() / want.square().mean().sqrt()
    assert off <= (1e-5 if dtype == torch.float32 else 0.05)


def test_all_parts_of_it_are_used():
    chunks, ids_BT = {"chunk_size": 9, "local_size": 3}, text(40)
    plain = model_with(chunks, Parts())(ids_BT)
    swaps = {
        "dca_positions": lambda t, size, local: dca_positions(t, size, local - 1),
        "dca_attend": lambda *a: dca_attend(*a) / 2,
        "merge_pieces": lambda mixed, lse: mixed[0],
        "apply_rope": lambda x, *_: x,
    }
    for name, swap in swaps.items():
        assert not torch.allclose(model_with(chunks, Parts(**{name: swap}))(ids_BT), plain), name


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ({"chunk_size": 8, "local_size": 8}, "needs 0 < local_size < chunk_size, got local_size 8"),
        ({"chunk_size": 8, "local_size": 0}, "got local_size 0 and chunk_size 8"),
        ({"chunk_size": 8}, "got local_size None and chunk_size 8"),
        ({"local_size": 8}, "got local_size 8 and chunk_size None"),
        ({}, "got local_size None and chunk_size None; chunk_size 32768"),
        ({"chunk_size": 8, "local_size": 2, "window": 3}, "has window; it may have chunk_size"),
        (
            {"chunk_size": 8, "local_size": 2, "original_max_position_embeddings": -1},
            "trained on, got -1",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_the_reason(chunks, says):
    with pytest.raises(ValueError, match=says):
        Qwen2Config(**SIZES, dual_chunk_attention_config=chunks)


def test_a_published_config_is_read_and_written():
    published = {
        "chunk_size": 262144,
        "local_size": 8192,
        "original_max_position_embeddings": 262144,
        "sparse_attention_enabled": True,
        "sparse_attention_threshold": 32768,
    }
    config = Qwen2Config.from_dict({**SIZES, "dual_chunk_attention_config": published})
    assert config.dual_chunk_attention_config == dict(list(published.items())[:3])
    assert Qwen2Config.from_dict(config.to_dict()) == config


def test_a_mask_is_refused():
    model = model_with({"chunk_size": 9, "local_size": 3})
    with pytest.raises(ValueError, match="takes no mask: padding would move"):
        model(text(4), mask=torch.ones(4, 4, dtype=torch.bool))


def random_piece(queries: int, keys: int, dtype: torch.dtype, times: float = 1.0):
    shapes = ((2, 6, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8))
    torch.manual_seed(queries)
    q_BNTH, k_BKSH, v_BKSH = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return (q_BNTH * times).to(dtype), (k_BKSH * times).to(dtype), v_BKSH.to(dtype)


def test_a_piece_by_its_formula_is_attention_with_its_lse():
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        q_BNTH, k_BKSH, v_BKSH = random_piece(5, 9, dtype)
        scores = (
            q_BNTH.double() @ k_BKSH.double().repeat_interleave(3, 1).transpose(-1, -2) * 8**-0.5
        )
        for causal in (False, True):
            mask = None if causal else torch.ones(5, 9, dtype=torch.bool)
            seen = torch.ones(5, 9, dtype=torch.bool).tril(4) if causal else mask
            mixed_BNTH, lse_BNT = attend_piece(q_BNTH, k_BKSH, v_BKSH, causal)
            want = attend(q_BNTH, k_BKSH, v_BKSH, mask)
            assert (mixed_BNTH - want).abs().max() <= max(tolerance, 2e-6)
            want_lse = scores.masked_fill(~seen, -math.inf).logsumexp(-1)
            assert (lse_BNT - want_lse).abs().max() <= max(tolerance, 2e-6)


@pytest.mark.parametrize("by_slices", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(7, 7, True), (5, 9, False), (1, 3, False)]
)
def test_the_kernel_and_the_slices_agree_with_the_formula(
    queries, keys, causal, by_slices, monkeypatch
):
    monkeypatch.setattr(pieces, "_SCORES_AT_ONCE", 2 * 6 * 9 * 2)  # two queries at a time
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        piece = random_piece(queries, keys, dtype)
        if by_slices:
            piece = tuple(tensor.requires_grad_() for tensor in piece)
        got, want = fused_attend_piece(*piece, causal), attend_piece(*piece, causal)
        for g, w in zip(got, want, strict=True):
            assert (g - w).abs().max() <= tolerance


@pytest.mark.parametrize(("queries", "keys"), [(3, 0), (0, 3)])
def test_an_empty_piece_is_refused(queries, keys):
    """PyTorch's kernel for the CPU divides by its length, and a learner's notebook would die of it."""
    q_BNTH, k_BKSH, v_BKSH = random_piece(3, 3, torch.float32)
    piece = q_BNTH[:, :, :queries], k_BKSH[:, :, :keys], v_BKSH[:, :, :keys]
    with pytest.raises(ValueError, match=f"has {queries} and {keys}: leave empty ones out"):
        fused_attend_piece(*piece, causal=False)


def test_gradients_of_the_chunked_model_are_those_of_the_dense_one():
    """The kernels would drop the gradient of the lse, and nobody would notice."""
    sizes, length = (7, 2), 18
    places = dca_positions(torch.arange(length), *sizes)
    frequencies_R = precise_frequencies(8, 100.0)
    leaves = [tensor.requires_grad_() for tensor in random_piece(length, length, torch.float64)]

    def gradients(mixed_BNTH):
        return torch.autograd.grad(mixed_BNTH.square().sum(), leaves)

    queries = [turned(leaves[0], place_T, frequencies_R) for place_T in places]
    k_BKSH = turned(leaves[1], places[0], frequencies_R)
    got = gradients(dca_attend(queries, k_BKSH, leaves[2], 5, merge_pieces))
    want = gradients(dense(*leaves, dca_distances(length, *sizes), frequencies_R))
    for g, w in zip(got, want, strict=True):
        assert (g - w).abs().max() <= 1e-11


def test_merged_pieces_are_one_softmax_also_where_exponentials_overflow():
    for times in (1.0, 40.0):  # scores of about 1, and of thousands
        q_BNTH, k_BKSH, v_BKSH = random_piece(4, 12, torch.float64, times)
        answers = [
            attend_piece(q_BNTH, k_BKSH[:, :, a:b], v_BKSH[:, :, a:b], False)
            for a, b in ((0, 5), (5, 6), (6, 12))
        ]
        whole, _ = attend_piece(q_BNTH, k_BKSH, v_BKSH, False)
        assert (merge_pieces(*zip(*answers, strict=True)) - whole).abs().max() <= 1e-12


def test_no_tensor_grows_with_the_square_of_the_length():
    """Four times the text, and the largest tensor that any operation makes is four times as large."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.most = max(getattr(self, "most", 0), tensor.numel())
            return out

    def largest(length: int) -> int:
        model = model_with({"chunk_size": 40, "local_size": 8}, Parts())
        with torch.inference_mode(), Largest() as watch:
            model(text(length), last_only=True)
        return watch.most

    assert largest(2000) <= 4 * largest(500)


def test_frequencies_of_the_reference_are_the_packages():
    assert torch.allclose(precise_frequencies(8, 100.0).float(), rotary_frequencies(8, 100.0))


def test_dual_chunks_can_be_switched_on_for_a_loaded_model():
    plain = model_with(None)
    chunks = {"chunk_size": 9, "local_size": 3}
    config = dataclasses.replace(plain.config, dual_chunk_attention_config=chunks)
    with torch.device("meta"):
        chunked = Qwen2(config, plain.parts)
    chunked.load_state_dict(plain.state_dict(), assign=True)
    with torch.inference_mode():
        assert torch.equal(chunked(text(40)), model_with(chunks)(text(40)))
