"""Wrong readers of a checkpoint: safetensors, and a block of Q4_0. The docstring says what is wrong."""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.weights.dequantise import half, nibbles, shifted

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def _read(
    data: bytes, before: int, dtypes: dict[str, torch.dtype] = DTYPES, turned: bool = False
) -> dict[str, Tensor]:
    """Reads a file right where `before` is 8 + the header's length; `turned` reverses the shapes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = torch.tensor(list(data[before + start : before + end]), dtype=torch.uint8)
        shape = entry["shape"][::-1] if turned else entry["shape"]
        found[name] = raw.view(dtypes[entry["dtype"]]).view(shape)
    return found


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def offsets_from_the_start(data: bytes) -> dict[str, Tensor]:
    """data_offsets are counted from the start of the file. They count from the end of the header, so
    that the header may grow without changing itself."""
    return _read(data, 0)


def eight_forgotten(data: bytes) -> dict[str, Tensor]:
    """The numbers are looked for 8 bytes too early: before the header stand the 8 bytes of its length,
    which it doesn't count."""
    return _read(data, _header_end(data) - 8)


def in_the_headers_order(data: bytes) -> dict[str, Tensor]:
    """The tensors are read one behind the other, as the header names them. The bytes may lie in another
    order, and `data_offsets` says where each begins and ends."""
    header, start = json.loads(data[8 : _header_end(data)]), _header_end(data)
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        end = start + last - first
        raw = torch.tensor(list(data[start:end]), dtype=torch.uint8)
        found[name] = raw.view(DTYPES[entry["dtype"]]).view(entry["shape"])
        start = end
    return found


def bfloat16_as_float16(data: bytes) -> dict[str, Tensor]:
    """BF16 is read as float16. Both have 16 bits, but bfloat16 spends 8 of them on the exponent and
    float16 only 5."""
    return _read(data, _header_end(data), DTYPES | {"BF16": torch.float16})


def shapes_turned_round(data: bytes) -> dict[str, Tensor]:
    """The shapes are reversed. That is right in a GGUF, which names the fastest dimension first;
    safetensors names rows first, as PyTorch does."""
    return _read(data, _header_end(data), turned=True)


def metadata_as_a_tensor(data: bytes) -> dict[str, Tensor]:
    """`__metadata__` is taken for a tensor. It is a note that a program may leave, mostly that the file
    is from PyTorch, and has no offsets: pass it over."""
    header = json.loads(data[8 : _header_end(data)])
    if "__metadata__" in header:
        raise KeyError("data_offsets")
    return _read(data, _header_end(data))


def neighbours(blocks: Tensor) -> Tensor:
    """The two halves of a byte are taken for neighbours. In a block the low halves are numbers 0 to 15
    and the high halves 16 to 31 (imp #722, aprender #1656)."""
    packed = blocks[:, 2:]
    integers = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)
    return half(blocks, 0) * shifted(integers, 8)


def high_halves_first(blocks: Tensor) -> Tensor:
    """The high halves come first. The low half of byte i is number i, its high half number i + 16."""
    packed = blocks[:, 2:]
    return half(blocks, 0) * shifted(torch.cat((packed >> 4, packed & 15), dim=1), 8)


def not_shifted(blocks: Tensor) -> Tensor:
    """The integers stay 0 to 15, so that no weight is negative. 8 stands for zero: subtract it."""
    return half(blocks, 0) * nibbles(blocks[:, 2:])


def as_twos_complement(blocks: Tensor) -> Tensor:
    """The four bits are read as a signed number in two's complement. They are an unsigned one with 8
    added to it: 0 means -8 and 15 means 7 (1bit-MONSTER #572)."""
    integers = nibbles(blocks[:, 2:]).view(torch.int8)
    return half(blocks, 0) * torch.where(integers > 7, integers - 16, integers)


def wrapped_around(blocks: Tensor) -> Tensor:
    """8 is subtracted from unsigned bytes, and 3 - 8 becomes 251. Make them signed first."""
    return half(blocks, 0) * (nibbles(blocks[:, 2:]) - 8)


def scale_as_bfloat16(blocks: Tensor) -> Tensor:
    """The scale is read as bfloat16. It is a float16, with another exponent: 1.0 becomes 0.0078
    (1bit-MONSTER #486)."""
    scale = blocks[:, :2].contiguous().view(torch.bfloat16).float()
    return scale * shifted(nibbles(blocks[:, 2:]), 8)


def one_scale_for_all(blocks: Tensor) -> Tensor:
    """The first block's scale is used for all. Each block has its own, in its first two bytes."""
    return half(blocks, 0)[:1] * shifted(nibbles(blocks[:, 2:]), 8)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "read_safetensors": (
        offsets_from_the_start,
        eight_forgotten,
        in_the_headers_order,
        bfloat16_as_float16,
        shapes_turned_round,
        metadata_as_a_tensor,
    ),
    "dequantise_q4_0": (
        neighbours,
        high_halves_first,
        not_shifted,
        as_twos_complement,
        wrapped_around,
        scale_as_bfloat16,
        one_scale_for_all,
    ),
}
"""The wrong versions of each reader."""
