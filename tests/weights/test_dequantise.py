"""Each kind of GGUF block against the gguf package, and against sums done by hand."""

import struct
import sys

import gguf
import numpy as np
import pytest
import torch

from qwen2lite.weights.dequantise import DEQUANTISE
from qwen2lite.weights.gguf import KINDS, read_directory
from qwen2lite.weights.gguf_checkpoint import GGUFCheckpoint, hf_name
from qwen2lite.weights.sources import resolve
from tests.conftest import REAL_MODEL

BLOCK = {name: (numbers, nbytes) for name, numbers, nbytes in KINDS.values()}
# Where a block's float16 scales start: random bytes there could be infinite or not a number.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def random_blocks(kind: str, count: int) -> np.ndarray:
    """Every bit random, apart from the exponents of the scales."""
    random = np.random.default_rng(len(kind) + count)
    numbers, nbytes = BLOCK[kind]
    if kind in ("F32", "F16", "BF16"):
        values = random.standard_normal((count, numbers)).astype(np.float32)
        return gguf.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    blocks = random.integers(0, 256, (count, nbytes), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = random.standard_normal((count, 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks


def ours(kind: str, blocks: np.ndarray) -> np.ndarray:
    return DEQUANTISE[kind](torch.from_numpy(blocks.reshape(-1, BLOCK[kind][1]))).numpy()


@pytest.mark.parametrize("kind", DEQUANTISE)
def test_random_bits_mean_to_us_what_they_mean_to_the_gguf_package(kind):
    blocks = random_blocks(kind, 301)
    theirs = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(ours(kind, blocks).ravel(), theirs.ravel())


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_gguf_package_quantised_comes_back_within_a_step(kind):
    values = np.random.default_rng(0).uniform(-1, 1, (50, 64)).astype(np.float32)
    blocks = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
    # A range of 2 in 2^bits steps; _0 kinds give up half a step at one end.
    step = 2 / 2 ** int(kind[1])
    assert np.abs(ours(kind, blocks).reshape(50, 64) - values).max() <= step * 1.01


@pytest.mark.parametrize("kind", DEQUANTISE)
def test_block_sizes_are_those_of_the_gguf_package(kind):
    assert BLOCK[kind] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]


def test_q8_0_by_hand():
    block = struct.pack("<e32b", 0.5, *range(-16, 16))
    got = DEQUANTISE["Q8_0"](torch.frombuffer(bytearray(block), dtype=torch.uint8)[None])
    assert got.tolist() == [[n / 2 for n in range(-16, 16)]]


def test_q4_0_by_hand_low_halves_first():
    # Byte i holds i in its low half and 15 - i in its high half; 8 stands for zero.
    block = struct.pack("<e16B", 2.0, *(i | (15 - i) << 4 for i in range(16)))
    got = DEQUANTISE["Q4_0"](torch.frombuffer(bytearray(block), dtype=torch.uint8)[None])
    assert got.tolist() == [[2.0 * (i - 8) for i in [*range(16), *reversed(range(16))]]]


def test_q4_k_by_hand():
    """Groups 0 and 7 have scale 1 and 33, minimum 0 and 5; every number is 3; the rest is zero."""
    first, second, low = [1, 0, 0, 0b10 << 6], [0, 0, 0, 0], [0, 0, 0, 5 << 4 | 1]
    block = struct.pack("<2e12B128B", 0.5, 2.0, *first, *second, *low, *[0x33] * 128)
    got = DEQUANTISE["Q4_K"](torch.frombuffer(bytearray(block), dtype=torch.uint8)[None])
    groups = got.view(8, 32)
    assert groups[0].tolist() == [0.5 * 1 * 3] * 32
    assert groups[7].tolist() == [0.5 * 33 * 3 - 2.0 * 5] * 32
    assert not groups[1:7].any()


@pytest.mark.real
def test_the_real_file_of_every_kind_equals_the_gguf_package_bit_for_bit():
    path = resolve(REAL_MODEL)
    _, tensors = read_directory(path)
    sys.setprofile(None)  # under the look at shape suffixes, their reader takes a minute
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert {name: info.shape for name, info in tensors.items()} == {
        name: tuple(int(size) for size in reversed(tensor.shape)) for name, tensor in theirs.items()
    }
    kinds = {info.kind for info in tensors.values()}
    assert kinds >= {"F32", "Q5_0", "Q8_0"}
    with GGUFCheckpoint(path) as checkpoint:
        for kind in sorted(kinds):
            names = [name for name, info in tensors.items() if info.kind == kind]
            for name in {names[0], names[len(names) // 2], names[-1]}:
                got = checkpoint.tensor(hf_name(name), torch.float32)
                raw = theirs[name]
                assert np.array_equal(got.numpy(), gguf.dequantize(raw.data, raw.tensor_type)), name
