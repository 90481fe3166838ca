"""Quantised products against float32 products with the same rounded weights."""

import pytest
import torch

from qwen2lite.infer.quantize import (
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
)
from qwen2lite.infer.quantized_products import Int4Linear, Int8Linear, unpack_int4


def rounded(kind: type, weight: torch.Tensor) -> torch.Tensor:
    if kind is Int4Linear:
        return dequantize_int4(*quantize_int4(weight))
    return dequantize_int8(*quantize_int8(weight))


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("outs", [(64,), (97, 5, 40), (128, 64)])
def test_it_multiplies_by_the_rounded_weights(kind, with_bias, rows, outs):
    torch.manual_seed(0)
    weights = [torch.randn(out, 96).bfloat16() for out in outs]
    biases = tuple(torch.randn(out).bfloat16() for out in outs) if with_bias else ()
    x = torch.randn(2, rows, 96)
    got = kind(*weights, biases=biases)(x)
    right = x.bfloat16().float() @ rounded(kind, torch.cat(weights)).T
    if with_bias:
        right += torch.cat(biases).float()
    assert got.shape == right.shape
    # What comes out is rounded to 8 bits, once or twice, and so are widened weights.
    assert (got - right).abs().max() <= 2**-7 * right.abs().max()


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_rows_may_lie_apart(kind, rows):
    """As the half of a wider product does. The kernels themselves don't look."""
    torch.manual_seed(0)
    product, wide = kind(torch.randn(64, 96)), torch.randn(1, rows, 192).bfloat16()
    half = wide.chunk(2, dim=-1)[1]
    assert torch.equal(product(half), product(half.clone(memory_format=torch.contiguous_format)))


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AVX2"),
    reason="not checked: the order of codes is known for AVX2 and AVX-512 only",
)
@pytest.mark.parametrize("shape", [(64, 32), (192, 96)])
def test_codes_come_back_in_order(shape):
    codes = torch.randint(0, 16, shape, dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    assert torch.equal(unpack_int4(packed).int(), codes)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_few_and_many_rows_take_the_same_weights(kind):
    torch.manual_seed(0)
    product = kind(torch.randn(128, 64))
    x = torch.randn(400, 64)
    few = torch.cat([product(row) for row in x.split(1)])
    assert (few - product(x)).abs().max() <= 2**-7 * few.abs().max()


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_rows_the_kernels_cannot_read_are_refused(kind):
    with pytest.raises(
        ValueError, match="rows of a multiple of 32 weights, and this matrix has 40"
    ):
        kind(torch.zeros(64, 40))
