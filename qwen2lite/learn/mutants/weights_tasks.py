"""Wrong answers to the tasks of the exercise 32_weights beside the readers."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _as_float32(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0])


def as_float16(bits: int) -> float:
    """The bits are read as float16, which has 5 bits of exponent. bfloat16 has 8, as float32 has."""
    return float(struct.unpack("<e", struct.pack("<H", bits))[0])


def in_the_lower_half(bits: int) -> float:
    """The 16 bits are put into the lower half of a float32. They are its upper half, with the sign and
    the exponent: shift them up by 16."""
    return _as_float32(bits)


def bytes_swapped(bits: int) -> float:
    """The two bytes have changed places. A file has the lower one first, little-endian; in a whole
    number that has been taken care of."""
    return _as_float32((bits << 8 & 0xFF00 | bits >> 8) << 16)


def the_whole_number(bits: int) -> float:
    """This is the whole number itself. Its bits stand for sign, exponent and mantissa."""
    return float(bits)


def sign_forgotten(bits: int) -> float:
    """The sign is lost. The highest of the 16 bits is 1 for negative numbers."""
    return _as_float32((bits & 0x7FFF) << 16)


def viewed_then_turned(numbers: Tensor, dimensions: Sequence[int]) -> Tensor:
    """The numbers are cut by the dimensions as listed, and the matrix is then turned: the right shape,
    the wrong numbers. A file lists the fastest dimension first, so the numbers lie row by row in the
    *reversed* shape (1bit-MONSTER #572 reshaped where order mattered)."""
    return numbers.view(*dimensions).T


def as_listed(numbers: Tensor, dimensions: Sequence[int]) -> Tensor:
    """The dimensions are taken as listed. GGUF lists the fastest one first, PyTorch last."""
    return numbers.view(*dimensions)


def turned_once_more(numbers: Tensor, dimensions: Sequence[int]) -> Tensor:
    """The matrix is right, and then turned. nn.Linear keeps [outputs, inputs], and so does the file:
    there is nothing to turn."""
    return numbers.view(*reversed(dimensions)).T


def _steps(weights: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Blocks of 32, and the scale of each."""
    blocks = weights.reshape(-1, 32)
    return blocks, blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)


def _relative(blocks: Tensor, back: Tensor) -> float:
    return ((blocks - back).norm() / blocks.norm()).item()


def _rounded(blocks: Tensor, scale: Tensor) -> Tensor:
    safe = torch.where(scale == 0, 1, scale)
    return (blocks / safe).round() * safe


def one_scale_for_the_matrix(weights: Tensor, bits: int) -> float:
    """One scale is used for the whole matrix, and the largest number of all sets it. Each block of 32
    has its own: that is what blocks are for."""
    blocks, scale = _steps(weights, bits)
    return _relative(blocks, _rounded(blocks, scale.max()))


def largest_without_abs(weights: Tensor, bits: int) -> float:
    """The scale is set by the largest number, and a larger negative one doesn't fit: take the largest
    absolute value."""
    blocks, _ = _steps(weights, bits)
    top = 2 ** (bits - 1) - 1
    scale = blocks.amax(1, keepdim=True) / top
    safe = torch.where(scale == 0, 1, scale)
    return _relative(blocks, (blocks / safe).round().clamp(-top, top) * safe)


def as_many_steps_as_numbers(weights: Tensor, bits: int) -> float:
    """The largest number is made 2^bits - 1. One bit is for the sign: it is 2^(bits - 1) - 1."""
    blocks, scale = _steps(weights, bits + 1)
    return _relative(blocks, _rounded(blocks, scale))


def cut_not_rounded(weights: Tensor, bits: int) -> float:
    """Numbers are cut towards zero, which loses up to a whole step. Rounded, they lose half of one."""
    blocks, scale = _steps(weights, bits)
    safe = torch.where(scale == 0, 1, scale)
    return _relative(blocks, (blocks / safe).trunc() * safe)


def nothing_by_nothing(weights: Tensor, bits: int) -> float:
    """A block of zeros has the scale 0, and 0 / 0 is not a number. Such a block comes back as it is."""
    blocks, scale = _steps(weights, bits)
    return _relative(blocks, (blocks / scale).round() * scale)


def absolute_error(weights: Tensor, bits: int) -> float:
    """This is the norm of the error. Divide it by the norm of the weights, so that matrices of
    different size can be compared."""
    blocks, scale = _steps(weights, bits)
    return (blocks - _rounded(blocks, scale)).norm().item()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "bfloat16_value": (
        as_float16,
        in_the_lower_half,
        bytes_swapped,
        the_whole_number,
        sign_forgotten,
    ),
    "mended_matrix": (viewed_then_turned, as_listed, turned_once_more),
    "rounding_error": (
        one_scale_for_the_matrix,
        largest_without_abs,
        as_many_steps_as_numbers,
        cut_not_rounded,
        nothing_by_nothing,
        absolute_error,
    ),
}
"""The wrong versions of each task."""
