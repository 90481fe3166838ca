"""The contracts of lesson 32 accept every right answer and tell wrong ones in a clear sentence."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load

from qwen2lite.learn.checks.weights import by_hand
from qwen2lite.learn.widgets.weights import loss_of
from qwen2lite.weights.dequantise import q4_0
from tests.learn.verdict import verdict


def value_by_parts(bits):
    sign, exponent, mantissa = bits >> 15, bits >> 7 & 255, bits & 127
    if exponent == 0:
        return (-1) ** sign * 2.0**-126 * mantissa / 128
    return (-1) ** sign * 2.0 ** (exponent - 127) * (1 + mantissa / 128)


def value_by_torch(bits):
    low, high = bits & 255, bits >> 8
    return torch.tensor([low, high], dtype=torch.uint8).view(torch.bfloat16).item()


def value_by_struct(bits):
    return struct.unpack(">f", struct.pack(">Hxx", bits))[0]


def read_by_slices(data):
    (length,) = struct.unpack_from("<Q", data)
    body, found = data[8 + length :], {}
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for name, entry in json.loads(data[8 : 8 + length].decode("utf-8")).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            raw = torch.tensor(list(body[start:end]), dtype=torch.uint8)
            found[name] = raw.view(kinds[entry["dtype"]]).reshape(entry["shape"])
    return found


def read_by_numpy(data):
    start = 8 + int(np.frombuffer(data[:8], "<u8")[0])
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if "dtype" not in entry:
            continue
        begin, end = entry["data_offsets"]
        raw = np.frombuffer(data, "<u1")[start + begin : start + end]
        if entry["dtype"] == "BF16":
            wide = raw.view("<u2").astype("<u4") << 16
            flat = torch.from_numpy(wide.view("<f4")).bfloat16()
        else:
            flat = torch.from_numpy(raw.view({"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).copy())
        found[name] = flat.view(*entry["shape"])
    return found


def unpacked_by_loop(blocks):
    rows = []
    for block in blocks.tolist():
        (scale,) = struct.unpack("<e", bytes(block[:2]))
        row = [0.0] * 32
        for i, byte in enumerate(block[2:]):
            row[i], row[i + 16] = scale * (byte % 16 - 8), scale * (byte // 16 - 8)
        rows.append(row)
    return torch.tensor(rows)


def unpacked_by_numpy(blocks):
    raw = blocks.numpy()
    scale = np.ascontiguousarray(raw[:, :2]).view("<f2").astype(np.float32)
    integers = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1).astype(np.int8)
    return torch.from_numpy(scale * (integers - np.int8(8)))


def error_by_blocks(weights, bits):
    lost, top = 0.0, 2 ** (bits - 1) - 1
    for block in weights.flatten().split(32):
        if block.abs().max() > 0:
            step = block.abs().max() / top
            lost += float(((block / step).round() * step - block).square().sum())
    return lost**0.5 / float(weights.norm())


def error_by_clamping(weights, bits):
    blocks = weights.view(-1, 32)
    scale = (blocks.abs().max(dim=1, keepdim=True).values / (2 ** (bits - 1) - 1)).clamp_min(1e-30)
    return ((blocks - torch.round(blocks / scale) * scale).norm() / weights.norm()).item()


RIGHT = [
    ("bfloat16_value", value_by_parts),
    ("bfloat16_value", value_by_torch),
    ("bfloat16_value", value_by_struct),
    ("read_safetensors", read_by_slices),
    ("read_safetensors", read_by_numpy),
    ("read_safetensors", lambda data: load(data)),
    ("dequantise_q4_0", unpacked_by_loop),
    ("dequantise_q4_0", unpacked_by_numpy),
    ("dequantise_q4_0", lambda blocks: q4_0(blocks)),
    ("mended_matrix", lambda row, dimensions: row.view(*dimensions[::-1])),
    ("mended_matrix", lambda row, dimensions: row.reshape(-1, dimensions[0])),
    ("mended_matrix", lambda row, dimensions: torch.stack(row.split(dimensions[0]))),
    ("rounding_error", error_by_blocks),
    ("rounding_error", error_by_clamping),
    ("rounding_error", lambda weights, bits: loss_of(weights, bits)),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_the_file_by_hand_is_one():
    tensors = load(by_hand())
    assert tensors["small"].tolist() == [1.0, 2.0, 0.5]
    assert tensors["wide"].tolist() == [[1.0, 2.0, 0.5], [0.5, 1.0, 2.0]]


def as_float32(data):
    return {name: tensor.float() for name, tensor in load(data).items()}


def with_the_note(data):
    return load(data) | ({"__metadata__": torch.ones(1)} if b"__metadata__" in data else {})


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("bfloat16_value", lambda bits: "1.5", "one number was wanted"),
        ("bfloat16_value", lambda bits: 1.5, "0x3F80 is 1, and yours is 1.5"),
        ("read_safetensors", lambda data: list(load(data).values()), "returned a list"),
        ("read_safetensors", lambda data: {}, "the answer only []"),
        ("read_safetensors", as_float32, "bfloat16 [2, 3] was wanted"),
        ("read_safetensors", with_the_note, "a `__metadata__` gives"),
        ("read_safetensors", lambda data: {n: t + 1 for n, t in load(data).items()}, "got [2, 3"),
        ("dequantise_q4_0", lambda blocks: q4_0(blocks)[:, :16], "float32 [1, 32] was wanted"),
        ("dequantise_q4_0", lambda blocks: q4_0(blocks) * 2, "should begin [-4, -3.5"),
        ("mended_matrix", lambda row, dimensions: row.view(*dimensions[::-1]).flip(0), "yours is"),
        ("rounding_error", lambda weights, bits: 0.2, "rows of different size"),
        ("rounding_error", lambda weights, bits: weights, "one number was wanted"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
