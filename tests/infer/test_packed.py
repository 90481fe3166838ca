"""The packed model against the plain one in float32, on the same bfloat16 weights."""

from dataclasses import replace

import pytest
import torch

from qwen2lite import CONFIGS, Parts, Qwen2
from qwen2lite.infer import packed as packed_module
from qwen2lite.infer import products
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2, pack
from qwen2lite.infer.padding import batch_mask
from qwen2lite.infer.products import (
    FEW_ROWS,
    BlockedLinear,
    NarrowLinear,
    TileLinear,
    fastest_linear,
)
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.weights.sources import default_model

SHAPE = {
    "vocab_size": 97, "hidden_size": 40, "intermediate_size": 88, "num_hidden_layers": 3,
    "num_attention_heads": 5, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip

needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="not checked: this processor's PyTorch has no FBGEMM, and packs nothing",
)

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="not checked: oneDNN doesn't multiply bfloat16 here",
)
NARROW = [NarrowLinear, pytest.param(BlockedLinear, marks=needs_onednn)]


def narrow_model(**changes) -> Qwen2:
    torch.manual_seed(0)
    config = replace(CONFIGS["qwen2-0.5b"], **{**SHAPE, "initializer_range": 0.2, **changes})
    return Qwen2(config).to(torch.bfloat16).eval()


def in_float32(model: Qwen2) -> Qwen2:
    wide = Qwen2(model.config)
    wide.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    return wide.eval()


@needs_fbgemm
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 5}, {"num_hidden_layers": 1}],
)
def test_logits_are_those_of_float32(changes):
    model = narrow_model(**changes)
    packed = PackedQwen2(model, TileLinear)
    ids_BT = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids_BT), in_float32(model)(ids_BT), atol=2e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("linear", NARROW)
def test_narrow_products_are_nearer_to_float32_than_the_narrow_model(linear, changes, rows):
    model = narrow_model(**changes)
    packed = PackedQwen2(model, linear)
    ids_BT = torch.randint(0, 97, (rows, 23), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        cache = packed.new_cache(23, rows)
        steps = torch.cat([packed(ids_BT[:, t : t + 1], cache) for t in range(23)], 1)
        right = in_float32(model)(ids_BT)
        narrow = (model(ids_BT) - right).square().mean().sqrt()
        for logits_BTV in (packed(ids_BT), steps):
            assert (logits_BTV - right).square().mean().sqrt() < narrow


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("linear", NARROW)
def test_a_narrow_row_is_what_it_is_among_others(linear, bias):
    torch.manual_seed(0)
    weights, biases = torch.randn(2, 5, 64).bfloat16(), torch.randn(2, 5).bfloat16()
    product = linear(*weights, biases=tuple(biases) if bias else ())
    x = torch.randn(1, 7, 64)
    alone = torch.cat([product(x[:, t : t + 1]) for t in range(7)], 1)
    # Both sum 64 products in float32 and round once to bfloat16: at most a step of 2^-7 apart.
    torch.testing.assert_close(alone, product(x), rtol=2**-7, atol=1e-3)
    assert alone.shape == (1, 7, 10)


@pytest.mark.parametrize("first", [True, False])
def test_few_rows_are_the_same_on_either_side_of_the_weight(first, monkeypatch):
    monkeypatch.setattr(products, "fastest_ways", lambda dtype: products.Ways(True, first))
    torch.manual_seed(0)
    weight, bias, x = torch.randn(9, 64).bfloat16(), torch.randn(9).bfloat16(), torch.randn(5, 64)
    product = NarrowLinear(weight, biases=(bias,))
    assert product.few_rows == (FEW_ROWS if first else 1)
    exact = x.bfloat16().double() @ weight.double().T + bias
    torch.testing.assert_close(product(x).double(), exact, rtol=2**-7, atol=1e-3)


@needs_fbgemm
@pytest.mark.parametrize("vectors", [True, False])
def test_a_single_row_goes_the_way_that_was_faster(vectors, monkeypatch):
    for module in (products, packed_module):
        monkeypatch.setattr(module, "fastest_ways", lambda dtype: products.Ways(vectors, True))
    packed, seen = PackedQwen2(narrow_model(), NarrowLinear), []
    multiply = NarrowLinear.forward

    def look(self, x):
        seen.append((self.as_vector, torch._C._get_mkldnn_enabled()))
        return multiply(self, x)

    monkeypatch.setattr(NarrowLinear, "forward", look)
    enabled = torch._C._get_mkldnn_enabled()
    with torch.inference_mode():
        logits_BTV = packed(torch.tensor([[3]]), packed.new_cache(2))
    assert set(seen) == {(vectors, enabled and vectors)}
    assert torch._C._get_mkldnn_enabled() == enabled
    truth = in_float32(narrow_model())(torch.tensor([[3]]))
    assert (logits_BTV - truth).abs().max() <= 0.02 * truth.abs().max()


@pytest.mark.parametrize("linear", NARROW)
def test_a_long_prompt_by_pieces_is_the_whole_prompt(linear):
    torch.manual_seed(0)
    model = narrow_model()
    mlp = PackedQwen2(model, linear).model.layers[0].mlp
    x_BTD = torch.randn(2, 9, model.config.hidden_size)
    assert mlp.rows_at_once == FEW_ROWS
    with torch.inference_mode():
        whole_BTD = mlp(x_BTD)
        for mlp.rows_at_once in (1, 4, 17):
            # The number of rows picks the kernel, so that the last bit of bfloat16 may differ.
            torch.testing.assert_close(mlp(x_BTD), whole_BTD, rtol=2**-6, atol=1e-4)


@needs_fbgemm
def test_pack_takes_the_faster_products():
    model = narrow_model()
    packed = pack(model)
    assert isinstance(packed, PackedQwen2)
    assert type(packed.lm_head) is fastest_linear(torch.bfloat16)


@pytest.mark.parametrize("blocks", [True, False])
def test_blocks_are_taken_where_they_are_faster_and_nothing_is_compiled(blocks, monkeypatch):
    monkeypatch.setattr(products, "pick_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(products, "_blocks_are_faster", lambda dtype: blocks)
    assert fastest_linear(torch.bfloat16) is (BlockedLinear if blocks else NarrowLinear)
    assert fastest_linear(torch.bfloat16, compiled=True) is NarrowLinear
    assert fastest_linear(torch.float16) is TileLinear


def test_a_release_without_the_private_operation_has_no_blocks(monkeypatch):
    def gone(*arguments, **named):
        raise AttributeError("_reorder_linear_weight")

    monkeypatch.setattr(products, "BlockedLinear", gone)
    assert products._blocks_are_faster.__wrapped__(torch.bfloat16) is False


@needs_fbgemm
@pytest.mark.parametrize("cut", [1, 7, 22])
def test_any_split_gives_the_same_logits(cut):
    packed = PackedQwen2(narrow_model(), TileLinear)
    ids_BT = torch.arange(23)[None]
    with torch.inference_mode():
        cache = packed.new_cache(23)
        pieces = [packed(ids_BT[:, :cut], cache)]
        pieces += [packed(ids_BT[:, t : t + 1], cache) for t in range(cut, 23)]
        torch.testing.assert_close(torch.cat(pieces, 1), packed(ids_BT), atol=2e-5, rtol=0)


@needs_fbgemm
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cut", [0, 9])
def test_the_last_position_alone_scores_as_among_all(cut, padded):
    """Its layer stores what the other positions leave, and computes no more of them."""
    packed = PackedQwen2(narrow_model(), TileLinear)
    ids_BT = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(1))
    mask = batch_mask(torch.tensor([0, 4]), 23, 23) if padded else None
    with torch.inference_mode():
        want = packed(ids_BT, None, mask)[:, -1:]
        cache = packed.new_cache(24, 2)
        if cut:
            first = None if mask is None else mask[:, :, :cut, :cut]
            packed(ids_BT[:, :cut], cache, first, last_only=True)
        rest = None if mask is None else mask[:, :, cut:]
        got = packed(ids_BT[:, cut:], cache, rest, last_only=True)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=0)
        whole = packed.new_cache(24, 2)
        packed(ids_BT, whole, mask)
        step_BT = torch.tensor([[5], [7]])
        seen = batch_mask(torch.tensor([0, 4]), 1, 24) if padded else None
        after, wanted = (packed(step_BT, kept, seen) for kept in (cache, whole))
        torch.testing.assert_close(after, wanted, atol=2e-5, rtol=0)


@needs_fbgemm
def test_the_last_layer_multiplies_one_row_where_one_is_asked():
    packed, rows = PackedQwen2(narrow_model(), TileLinear), []
    for layer in packed.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[1]))
    packed(torch.arange(23)[None], last_only=True)
    assert rows == [23, 23, 1]
    assert sum(p.numel() for p in packed.parameters()) == 97 * 40 + 7 * 40, "none is there twice"


@needs_fbgemm
def test_it_generates_the_tokens_of_float32():
    model = narrow_model()
    expected = list(generate_ids(in_float32(model), [1, 2, 3], max_new_tokens=40))
    assert (
        list(generate_ids(PackedQwen2(model, TileLinear), [1, 2, 3], max_new_tokens=40)) == expected
    )


@needs_fbgemm
def test_packing_changes_no_weight_between_the_limits():
    exponents = torch.arange(-14, 16).float()
    weight = (1 + torch.arange(128) / 128)[:, None] * 2.0**exponents
    product = TileLinear(weight.bfloat16())(torch.eye(30))
    assert torch.equal(product.T, weight)


@needs_fbgemm
def test_small_weights_are_off_by_at_most_half_a_step():
    weight = torch.linspace(-6e-5, 6e-5, 999)[:, None].bfloat16()
    product = TileLinear(weight)(torch.ones(1, 1))
    assert (product.T - weight.float()).abs().max() <= 2.0**-25


@needs_fbgemm
def test_a_weight_beyond_float16_is_refused():
    model = narrow_model()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = 70_000
    with pytest.raises(
        ValueError, match="a weight of 70144 can't be packed: float16 ends at 65504"
    ):
        PackedQwen2(model, TileLinear)


class OwnMLP(SwiGLU):
    """As a learner writes one."""


@pytest.mark.parametrize(
    "model",
    [
        narrow_model().float(),
        Qwen2(narrow_model().config, Parts(mlp=OwnMLP)).to(torch.bfloat16),
        narrow_model(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=24,
        ),
    ],
    ids=["float32", "the learner's part", "experts"],
)
def test_other_models_come_back_as_they_are(model):
    assert pack(model) is model


@needs_fbgemm
@needs_onednn
@pytest.mark.real
def test_the_real_model_packed_is_near_float32(real_tokenizer):
    model = Qwen2.from_pretrained(default_model(), dtype=torch.bfloat16, device="cpu")
    ids_BT = torch.tensor([real_tokenizer.encode("def fibonacci(n):\n    if n < 2:\n")])

    @torch.inference_mode()
    def off(other: Qwen2) -> float:
        return float((other(ids_BT) - right_BTV).abs().max())

    with torch.inference_mode():
        right_BTV = in_float32(model)(ids_BT)
    kinds = (TileLinear, NarrowLinear, BlockedLinear)
    tiles, narrow, blocked = (off(PackedQwen2(model, kind)) for kind in kinds)
    plain = off(model)
    print(
        f"max difference: tiles {tiles:.1e}, narrow {narrow:.1e}, blocked {blocked:.1e}, "
        f"not packed {plain:.1e}"
    )
    assert tiles <= 2e-3
    assert max(narrow, blocked) <= plain
