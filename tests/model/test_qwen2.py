"""The whole model against transformers, and the cache against itself."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.model.attention import attend, causal_mask, fused_attend
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.model.rope import apply_rope, rotary_frequencies, rotary_tables

# (query heads, key/value heads, head size, hidden, mlp width, layers, tied): GQA, MQA, MHA, odd sizes.
SHAPES = [
    (heads, kv_heads, head_dim, hidden, width, layers, tied)
    for tied in (True, False)
    for heads, kv_heads, head_dim, hidden, width, layers in [
        (4, 2, 8, 32, 48, 2),
        (4, 4, 8, 32, 33, 1),
        (6, 1, 4, 24, 50, 3),
        (7, 1, 64, 448, 96, 1),
        (2, 2, 64, 128, 77, 2),
        (14, 2, 64, 896, 128, 1),
        (3, 3, 16, 48, 31, 2),
        (5, 5, 6, 30, 19, 2),
        (8, 2, 10, 80, 64, 4),
        (9, 3, 12, 108, 65, 2),
    ]
]


def theirs(shape, seed: int, folder) -> transformers.Qwen2ForCausalLM:
    heads, kv_heads, _, hidden, width, layers, tied = shape
    config = transformers.Qwen2Config(
        vocab_size=199,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.2 / hidden**0.25,
    )
    torch.manual_seed(seed)
    model = transformers.Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:  # transformers starts them at zero, which would hide a forgotten bias
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("seed", range(len(SHAPES)))
def test_logits_equal_transformers_on_random_models(seed, tmp_path):
    reference = theirs(SHAPES[seed], seed, tmp_path)
    model = Qwen2.from_pretrained(tmp_path, dtype=torch.float32, device="cpu")
    ids_BT = torch.randint(0, 199, (3, 17), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        difference = (model(ids_BT) - reference(ids_BT).logits).abs().max()
    assert difference <= 1e-5


@pytest.mark.parametrize("norm_topk_prob", [False, True])
def test_experts_equal_transformers(norm_topk_prob, tmp_path):
    config = transformers.Qwen2MoeConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=40,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=20,
        num_experts=7,
        num_experts_per_tok=3,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        norm_topk_prob=norm_topk_prob,
        mlp_only_layers=[1],
        decoder_sparse_step=1,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    reference = transformers.Qwen2MoeForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    model = Qwen2.from_pretrained(tmp_path, dtype=torch.float32, device="cpu")
    ids_BT = torch.randint(0, 99, (2, 13))
    with torch.inference_mode():
        difference = (model(ids_BT) - reference(ids_BT).logits).abs().max()
    assert difference <= 1e-5


def small_model(parts: Parts | None = None) -> Qwen2:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=50,
        initializer_range=0.3,
    )
    return Qwen2(config, parts).eval()


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_any_split_into_prefill_and_decode_gives_the_same_logits(cuts):
    model = small_model().double()  # so that rounding can't hide a small mistake
    ids_BT = torch.randint(0, 97, (2, sum(cuts)), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(sum(cuts), batch_size=2)
    with torch.inference_mode():
        whole = model(ids_BT)
        pieces = [model(piece, cache) for piece in ids_BT.split(cuts, dim=1)]
    assert cache.length == sum(cuts)
    assert (torch.cat(pieces, dim=1) - whole).abs().max() <= 1e-11


@pytest.mark.parametrize("queries", [5, 1])
def test_the_formula_and_the_fused_kernel_agree_with_and_without_a_mask(queries):
    torch.manual_seed(0)
    q_BNTH = torch.randn(2, 6, queries, 10)
    k_BKSH, v_BKSH = torch.randn(2, 2, 3, 8, 10)
    shapes = ((queries, 8), (2, 1, queries, 8), (2, 6, queries, 8))
    for mask in (None, causal_mask(queries, 8), *(torch.rand(shape) < 0.7 for shape in shapes)):
        if mask is not None:
            mask = mask | torch.eye(queries, 8, dtype=torch.bool)  # no row without a key
        got = fused_attend(q_BNTH, k_BKSH, v_BKSH, mask)
        assert (attend(q_BNTH, k_BKSH, v_BKSH, mask) - got).abs().max() <= 1e-6


def test_left_padding_with_a_mask_changes_nothing():
    """RoPE sees only distances, so padding in front needs a mask but no shifted positions."""
    model = small_model()
    ids_BT = torch.tensor([[5, 6, 7, 8]])
    padded_BT = torch.tensor([[0, 0, 0, 5, 6, 7, 8]])
    mask_TS = causal_mask(7, 7)
    mask_TS[:, :3] = False
    mask_TS[:3, 0] = True  # padding looks somewhere, or its softmax would have no key
    with torch.inference_mode():
        difference = model(padded_BT, mask=mask_TS)[:, 3:] - model(ids_BT)
    assert difference.abs().max() <= 2e-5


def test_a_turned_head_keeps_its_dtype():
    tables = rotary_tables(torch.arange(5), rotary_frequencies(8, 1e4))
    assert apply_rope(torch.randn(1, 2, 5, 8).bfloat16(), *tables).dtype == torch.bfloat16


def test_parts_are_used():
    """Each swapped part changes the logits, so none is ignored."""
    ids_BT = torch.randint(0, 97, (1, 9))
    torch.manual_seed(0)
    plain = small_model()(ids_BT)
    half = Parts()
    swaps = {
        "rotary_frequencies": lambda *a: half.rotary_frequencies(*a) / 2,
        "rotary_tables": lambda *a: half.rotary_tables(*a)[::-1],
        "apply_rope": lambda x, *_: x,
        "attend": lambda q, k, v, mask: half.attend(q, k, v, mask) / 2,
    }
    for name, swap in swaps.items():
        assert not torch.allclose(small_model(Parts(**{name: swap}))(ids_BT), plain), name


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.tensor([[3, 97]]), "token id 97 is outside"),
        (torch.tensor([[0, 97]]), "token id 97 is outside"),
        (torch.tensor([[-1, 3]]), "token id -1 is outside"),
        (torch.tensor([3, 4]), r"shape \[batch, tokens\]"),
        (torch.zeros(1, 0, dtype=torch.long), "at least one token"),
    ],
)
def test_wrong_ids_are_refused_with_the_reason(ids, says):
    with pytest.raises(ValueError, match=says):
        small_model()(ids)


def test_a_full_context_is_refused():
    model = small_model()
    with pytest.raises(ValueError, match="51 tokens don't fit this model's context of 50"):
        model.new_cache(51)
    cache = model.new_cache(3)
    with pytest.raises(ValueError, match="room for 3 tokens and would need 4"):
        model(torch.zeros(1, 4, dtype=torch.long), cache)
