"""Rounding weights: by hand, against bounds that hold for any weights, and on the real model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2
from qwen2lite.evaluate.perplexity import perplexity
from qwen2lite.infer.quantize import (
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
)
from qwen2lite.infer.quantized_checkpoint import load_quantized
from qwen2lite.weights.sources import default_model

TEXT = Path(__file__).parents[2] / "data" / "prose_and_code.txt"


def test_int8_by_hand():
    codes, scales = quantize_int8(torch.tensor([[127.0, -64, 0.4, 0.6], [0, 0, 0, 0]]))
    assert scales[0] == 1
    assert codes.tolist() == [[127, -64, 0, 1], [0, 0, 0, 0]]
    assert dequantize_int8(codes, scales).tolist() == [[127, -64, 0, 1], [0, 0, 0, 0]]


def test_int4_by_hand():
    """Sixteen evenly spaced values are hit exactly: the zero is the one with code 8."""
    weight = torch.arange(16.0)[None] / 2 - 1
    codes, scales, zeros = quantize_int4(weight, group_size=16)
    assert codes.tolist() == [list(range(16))]
    assert (float(scales), float(zeros)) == (0.5, 3.0)
    assert torch.equal(dequantize_int4(codes, scales, zeros), weight)


def test_an_outlier_is_clipped_where_that_is_better_for_all():
    torch.manual_seed(0)
    weight = torch.cat((torch.randn(1, 63), torch.tensor([[5.0]])), 1)
    steps = (weight.max() - weight.min()) / 15
    _, scales, _ = quantize_int4(weight, group_size=64)
    assert float(scales) < 0.99 * steps


weights = st.integers(0, 2**31).map(
    lambda seed: (
        torch.randn(5, 64, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 7 - 3)
        + seed % 3
    )
)


@given(weights)
def test_int8_is_off_by_half_a_step_at_most(weight):
    codes, scales = quantize_int8(weight)
    # The scale is rounded to 8 bits: 127 of it may fall short of the largest by 2^-9 of it.
    bound = scales.float()[:, None] * 0.5 + weight.abs().amax(1, keepdim=True) * 2**-8
    assert ((dequantize_int8(codes, scales) - weight).abs() <= bound).all()


@given(weights)
def test_int4_is_no_worse_than_rounding_over_the_whole_range(weight):
    codes, scales, zeros = quantize_int4(weight, group_size=32)
    assert int(codes.min()) >= 0 and int(codes.max()) <= 15
    low, high = weight.unflatten(1, (-1, 32)).aminmax(dim=-1, keepdim=True)
    steps = ((weight.unflatten(1, (-1, 32)) - low) / (high - low) * 15).round()
    plain = (low + steps * (high - low) / 15).flatten(1)
    error, its_error = (
        (w - weight).square().sum().sqrt() for w in (dequantize_int4(codes, scales, zeros), plain)
    )
    # bfloat16 scales and zeros, of 8 bits, cost up to 2^-9 of the weights' own size.
    assert error <= its_error + weight.square().sum().sqrt() * 2**-8


@given(weights)
def test_bfloat16_weights_are_rounded_as_the_same_numbers_in_float32(weight):
    narrow = weight.bfloat16()
    for quantize, dtype in ((quantize_int8, torch.int8), (quantize_int4, torch.uint8)):
        got, want = quantize(narrow), quantize(narrow.float())
        assert got[0].dtype == dtype and all(map(torch.equal, got, want))


def test_a_row_that_groups_do_not_divide_says_what_to_do():
    with pytest.raises(ValueError, match="rows of 40 weights can't be cut into groups of 32"):
        quantize_int4(torch.zeros(3, 40))


@pytest.mark.real
@pytest.mark.parametrize(("bits", "bound"), [("int8", 1.02), ("int4", 1.08)])
def test_the_real_models_perplexity_stays_near(bits, bound, real_tokenizer, real_bfloat16):
    ids = real_tokenizer.encode(TEXT.read_text(encoding="utf-8"), allowed_special="none")
    right = perplexity(real_bfloat16, ids, 512)
    got = perplexity(load_quantized(default_model(), bits), ids, 512)
    print(f"perplexity of {len(ids)} tokens: bfloat16 {right:.3f}, {bits} {got:.3f}")
    assert got <= bound * right


@pytest.fixture(scope="module")
def real_bfloat16():
    return Qwen2.from_pretrained(default_model(), torch.bfloat16, "cpu")
