"""Products with quantised matrices: PyTorch's own weight-only kernels for a few rows on the CPU.

The kernels widen codes in registers, row by row of the input: a token is fast and a long prompt slow.
From some rows on, widening the whole matrix first and multiplying as usual is faster.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.infer.quantize import GROUP_SIZE, quantize_int4, quantize_int8

_BLOCK = 64
"""Rows that the kernels take at once, at most. They don't check, and would read past the end."""
_HALF_BLOCK = {"AVX512": 32, "AVX2": 16}


class QuantizedLinear(nn.Module):
    """Linear layers that read the same input, as one product with their outputs side by side.

    Everything it keeps are buffers, so its state can be stored and loaded.

    Args:
        weights: each [out, in].
        biases: each [out]; all of the weights have one, or none has.

    Raises:
        ValueError: rows that are no multiple of 32 weights.
    """

    out_dtype = torch.bfloat16
    few_rows: int
    """Up to so many rows the kernel is faster than widening; measured on a Xeon with AMX."""
    bias: torch.Tensor | None

    def __init__(self, *weights: torch.Tensor, biases: tuple[torch.Tensor, ...] = ()):
        super().__init__()
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.out_features = len(weight)
        self.register_buffer("bias", torch.cat(biases).detach().bfloat16() if biases else None)
        if weight.shape[1] % GROUP_SIZE:
            raise ValueError(
                f"the kernels for quantised weights take rows of a multiple of {GROUP_SIZE} weights, "
                f"and this matrix has {weight.shape[1]}; leave the model in bfloat16"
            )
        if not weight.is_meta:  # else its state is loaded
            self.quantize(F.pad(weight.detach(), (0, 0, 0, -len(weight) % _BLOCK)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs in bfloat16; x may be float32, and is rounded."""
        rows = x.to(torch.bfloat16).reshape(-1, x.shape[-1]).contiguous()
        few = len(rows) <= self.few_rows
        out = self.multiply(rows) if few else F.linear(rows, self.widened())
        out = out[:, : self.out_features]
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], -1)

    def quantize(self, weight: torch.Tensor) -> None:
        """Sets the buffers. Rows of zeros have filled the weight's last block."""
        raise NotImplementedError

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns rows @ weight.T, both bfloat16, without widening more than a register."""
        raise NotImplementedError

    def widened(self) -> torch.Tensor:
        """Returns the weight in bfloat16."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """8 bits a weight and a scale a row."""

    few_rows = 12
    codes: torch.Tensor
    scales: torch.Tensor

    def quantize(self, weight: torch.Tensor) -> None:
        codes, scales = quantize_int8(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        return torch._weight_int8pack_mm(rows, self.codes, self.scales)

    def widened(self) -> torch.Tensor:
        return self.codes.to(torch.bfloat16).mul_(self.scales[:, None])


class Int4Linear(QuantizedLinear):
    """4 bits a weight and 32 bits a group of 32, in the order in which this processor reads them."""

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    # Where the order isn't known, nothing is widened.
    few_rows = 128 if torch.backends.cpu.get_cpu_capability() in _HALF_BLOCK else sys.maxsize

    def quantize(self, weight: torch.Tensor) -> None:
        codes, scales, zeros = quantize_int4(weight)
        packed = torch._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        self.register_buffer("packed", packed)
        both = torch.stack((scales.t(), zeros.t()), -1)
        self.register_buffer("scales_and_zeros", both.contiguous())

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        return torch._weight_int4pack_mm_for_cpu(
            rows, self.packed, GROUP_SIZE, self.scales_and_zeros
        )

    def widened(self) -> torch.Tensor:
        rows, columns = len(self.packed), 2 * self.packed.shape[1]
        scales, zeros = self.scales_and_zeros.unbind(-1)
        groups = unpack_int4(self.packed).sub_(8).view(rows, -1, GROUP_SIZE)
        groups.mul_(scales.t()[..., None]).add_(zeros.t()[..., None])
        return groups.view(rows, columns)


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """Codes as `torch._convert_weight_to_int4pack_for_cpu` was given them, in bfloat16.

    PyTorch doesn't document their order; this is what its kernels for AVX-512 and AVX2 were found to
    do. A block of 64 or 32 rows lies column by column, and a byte holds a row of the block's first
    half in its low bits and one of the second half in its high bits.

    Args:
        packed: uint8, [out, in / 2]; out is a multiple of 64.

    Returns:
        codes, [out, in].
    """
    half = _HALF_BLOCK[torch.backends.cpu.get_cpu_capability()]
    rows, columns = len(packed), 2 * packed.shape[1]
    pairs = packed.view(-1, columns, half).transpose(1, 2)
    codes = torch.empty(rows // (2 * half), 2, half, columns, dtype=torch.bfloat16)
    codes[:, 0] = pairs & 15
    codes[:, 1] = pairs >> 4
    return codes.view(rows, columns)
