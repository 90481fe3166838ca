"""From GGUF's blocks of small integers back to numbers: one function a kind.

A block holds 32 (or 256) numbers as integers of a few bits and a scale they share. The kinds with a
K cut 256 numbers into smaller groups and store the groups' own scales in 4 to 8 bits too. In a byte
that holds two integers, the low half belongs to the first half of the group, the high half to the
second half: neighbours in the file are not neighbours in the row.

Every function takes blocks, uint8 [blocks, bytes], and returns float32 [blocks, numbers].

Source: the block structs of ggml-common.h in github.com/ggml-org/ggml.
"""

import torch


def half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 number at a byte of each block, as float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def nibbles(packed: torch.Tensor) -> torch.Tensor:
    """The low four bits of every byte, then the high four: [..., n] becomes [..., 2n]."""
    packed = packed.contiguous()
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def bits(packed: torch.Tensor) -> torch.Tensor:
    """The eight bits of every byte, lowest first: [..., n] becomes [..., 8n]."""
    return _BITS_OF_BYTE[packed.int()].view(torch.uint8)


# A row of eight bytes for each of the 256 bytes. Read as one int64, a row moves in one step.
_BYTES, _PLACES = torch.arange(256, dtype=torch.uint8), torch.arange(8, dtype=torch.uint8)
_BITS_OF_BYTE = (_BYTES[:, None] >> _PLACES & 1).view(torch.int64).flatten()


def shifted(integers: torch.Tensor, by: int) -> torch.Tensor:
    """Small unsigned integers minus `by`, signed: a byte below zero would wrap around to 255."""
    return integers.view(torch.int8) - by


def q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """32 numbers: scale, then 4 bits each, shifted by 8."""
    return half(blocks, 0) * shifted(nibbles(blocks[:, 2:]), 8)


def q4_1(blocks: torch.Tensor) -> torch.Tensor:
    """32 numbers: scale, minimum, then 4 bits each."""
    return half(blocks, 0) * nibbles(blocks[:, 4:]) + half(blocks, 2)


def q5_0(blocks: torch.Tensor) -> torch.Tensor:
    """32 numbers: scale, the fifth bits together in 4 bytes, then 4 bits each; shifted by 16."""
    low, fifth = nibbles(blocks[:, 6:]), bits(blocks[:, 2:6])
    return half(blocks, 0) * shifted(low | fifth << 4, 16)


def q5_1(blocks: torch.Tensor) -> torch.Tensor:
    """32 numbers: scale, minimum, the fifth bits, then 4 bits each."""
    low, fifth = nibbles(blocks[:, 8:]), bits(blocks[:, 4:8])
    return half(blocks, 0) * (low | fifth << 4) + half(blocks, 2)


def q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """32 numbers: scale, then a signed byte each."""
    return half(blocks, 0) * blocks[:, 2:].view(torch.int8)


def group_scales(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight 6-bit scales and eight 6-bit minimums from 12 bytes, float32 [blocks, 8] each.

    The first four of each stand in the low 6 bits of bytes 0–3 and 4–7. The last four have their
    low 4 bits in bytes 8–11 and their top 2 bits in what bytes 0–7 have left.
    """
    first, second, low = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((first & 63, (low & 15) | (first >> 6 << 4)), dim=1)
    minimums = torch.cat((second & 63, (low >> 4) | (second >> 6 << 4)), dim=1)
    return scales.float(), minimums.float()


def scaled_groups(blocks: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
    """Integers [blocks, 8, 32] through the scales and minimums of Q4_K and Q5_K."""
    scales, minimums = group_scales(blocks[:, 4:16])
    scale = (half(blocks, 0) * scales)[:, :, None]
    minimum = (half(blocks, 2) * minimums)[:, :, None]
    return (scale * integers - minimum).flatten(1)


def q4_k(blocks: torch.Tensor) -> torch.Tensor:
    """256 numbers in 8 groups: scale of scales, scale of minimums, 12 bytes of both, 4 bits each."""
    low = nibbles(blocks[:, 16:].unflatten(1, (4, 32))).unflatten(2, (2, 32)).flatten(1, 2)
    return scaled_groups(blocks, low)


def q5_k(blocks: torch.Tensor) -> torch.Tensor:
    """As Q4_K, with the fifth bits in 32 bytes: bit g of byte i is the fifth of number i of group g."""
    low = nibbles(blocks[:, 48:].unflatten(1, (4, 32))).unflatten(2, (2, 32)).flatten(1, 2)
    packed = blocks[:, 16:48].contiguous()
    fifth = torch.stack([packed >> group & 1 for group in range(8)], dim=1)
    return scaled_groups(blocks, low | fifth << 4)


def q6_k(blocks: torch.Tensor) -> torch.Tensor:
    """256 numbers in 16 groups: 4 low bits, 2 high bits, a signed byte of scale a group, one scale.

    The row is two halves of 128; in each, 64 bytes hold the low bits of numbers i and i + 64, and 32
    bytes the high bits of numbers i, i + 32, i + 64 and i + 96.
    """
    low = nibbles(blocks[:, 0:128].unflatten(1, (2, 64)))
    packed = blocks[:, 128:192].contiguous().unflatten(1, (2, 32))
    high = torch.cat([packed >> place & 3 for place in (0, 2, 4, 6)], dim=-1)
    integers = shifted(low | high << 4, 32)
    scales = half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return (scales[:, :, None] * integers.flatten(1).unflatten(1, (16, 16))).flatten(1)


def f32(blocks: torch.Tensor) -> torch.Tensor:
    """Not quantised."""
    return blocks.view(torch.float32)


def f16(blocks: torch.Tensor) -> torch.Tensor:
    """Not quantised, 16 bits."""
    return blocks.view(torch.float16).float()


def bf16(blocks: torch.Tensor) -> torch.Tensor:
    """Not quantised, the upper 16 bits of a float32."""
    return blocks.view(torch.bfloat16).float()


DEQUANTISE = {
    "F32": f32,
    "F16": f16,
    "BF16": bf16,
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}
"""Name of a kind -> its function."""
