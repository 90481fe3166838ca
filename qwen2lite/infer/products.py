"""Three ways to multiply by a narrow matrix on the CPU, and which this processor is fastest at.

* `TileLinear`: FBGEMM, the kernels that PyTorch carries for quantised models, keeps float16 weights in
  tiles, widens them on the way and computes in float32. Best where a processor knows no bfloat16.
* `BlockedLinear`: oneDNN's products, for which the weights are laid out once in its own blocks. On an
  AMD EPYC with AVX-512 one row to four read them at 44 GB/s and eight at 37. Weights as they are give
  one row 45, four 28 and eight 25, each in another way.
* `NarrowLinear`: the weights as they are. A processor with bfloat16 instructions reads them at
  memory's speed, on a Xeon with AMX as long as one row is a *vector* (`torch.mv`; the same row as a
  matrix of one row takes 1.5 times as long), on that EPYC without oneDNN (2.6 times as fast as a
  vector). A few rows are columns to the right of the weight on the Xeon: eight of them take two thirds
  of the time that they take on its left, and on the EPYC nearly twice. So both are tried out.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.infer.cpu import without_onednn
from qwen2lite.model.device import faster, pick_dtype
from qwen2lite.model.onednn import faster_with_onednn, onednn_blocks, onednn_linear

LARGEST_FLOAT16 = 65504.0
FEW_ROWS = 256
"""Up to so many rows the weight goes first, where it does at all; measured on a Xeon with AMX."""


class TileLinear(nn.Module):
    """Linear layers that read the same input, as one product with their outputs side by side.

    A bfloat16 weight has 8 significant bits and float16 has 11, so packing is exact for weights
    between 6.1e-5 and 65504 in size; smaller ones are off by at most 3e-8.

    Args:
        weights: each [out, in].
        biases: each [out]; all of the weights have one, or none has.

    Raises:
        ValueError: a weight that float16 can't hold.
    """

    out_dtype = torch.float32

    def __init__(self, *weights: torch.Tensor, biases: tuple[torch.Tensor, ...] = ()):
        super().__init__()
        weight = torch.cat(weights).detach().float()
        if not weight.abs().max() <= LARGEST_FLOAT16:
            raise ValueError(
                f"a weight of {float(weight.abs().max()):g} can't be packed: float16 ends at "
                f"{LARGEST_FLOAT16:g}; generate with the model unpacked"
            )
        bias = torch.cat(biases).detach().float() if biases else None
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
        self.nbytes = 2 * weight.numel() + (bias.nbytes if bias is not None else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs in float32; x is float32 too."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class NarrowLinear(nn.Module):
    """As `TileLinear`, with the weights as they are. A single matrix isn't copied.

    Outputs come in the weights' format, and x is rounded to it.
    """

    out_dtype: torch.dtype

    def __init__(self, *weights: torch.Tensor, biases: tuple[torch.Tensor, ...] = ()):
        super().__init__()
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.out_dtype = weight.dtype
        ways = fastest_ways(weight.dtype)
        self.as_vector, self.few_rows = ways.as_vector, FEW_ROWS if ways.weight_first else 1
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = (
            nn.Parameter(torch.cat(biases).detach(), requires_grad=False) if biases else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs in the weights' format; x may be float32."""
        rows = x.to(self.out_dtype).reshape(-1, x.shape[-1])
        if len(rows) == 1 and self.as_vector:
            out = self._of_a_vector(rows[0])
        elif 1 < len(rows) <= self.few_rows:
            out = self._of_columns(rows.t()).t()
        else:
            out = F.linear(rows, self.weight, self.bias)
        return out.view(*x.shape[:-1], -1)

    def _of_a_vector(self, row: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return torch.mv(self.weight, row)
        return torch.addmv(self.bias, self.weight, row)

    def _of_columns(self, columns: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return torch.mm(self.weight, columns)
        return torch.addmm(self.bias[:, None], self.weight, columns)


class BlockedLinear(nn.Module):
    """As `NarrowLinear`, with the weights in the blocks that oneDNN's kernels read, laid out once.

    PyTorch's compiler can't look into it.
    """

    out_dtype: torch.dtype

    def __init__(self, *weights: torch.Tensor, biases: tuple[torch.Tensor, ...] = ()):
        super().__init__()
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.out_dtype = weight.dtype
        blocks = onednn_blocks(weight.detach(), FEW_ROWS)
        self.blocks = nn.Parameter(blocks, requires_grad=False)
        self.bias = (
            nn.Parameter(torch.cat(biases).detach(), requires_grad=False) if biases else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs in the weights' format; x may be float32."""
        return onednn_linear(x.to(self.out_dtype), self.blocks, self.bias)


class Ways(NamedTuple):
    """How a narrow product is fastest here."""

    as_vector: bool
    """One row is a vector for oneDNN; else it is a row, and oneDNN is left out."""
    weight_first: bool
    """A few rows are columns behind the weight."""


@functools.cache
def fastest_ways(dtype: torch.dtype) -> Ways:
    """Tries both ways, on a matrix too large for the caches; once a process."""
    weight, rows = torch.ones(16384, 1024, dtype=dtype), torch.ones(8, 1024, dtype=dtype)

    def row_without_onednn() -> None:
        with without_onednn():
            F.linear(rows[:1], weight)

    return Ways(
        as_vector=faster(partial(torch.mv, weight, rows[0]), row_without_onednn),
        weight_first=faster(partial(torch.mm, weight, rows.t()), partial(F.linear, rows, weight)),
    )


def fastest_linear(
    dtype: torch.dtype, compiled: bool = False
) -> type[TileLinear] | type[NarrowLinear] | type[BlockedLinear]:
    """The class that generates faster here.

    Args:
        dtype: of the weights, bfloat16 or float16.
        compiled: whether steps are to be compiled.
    """
    if not dtype == torch.bfloat16 == pick_dtype(torch.device("cpu")):
        return TileLinear  # trying it out would cost half a second at each start
    return BlockedLinear if not compiled and _blocks_are_faster(dtype) else NarrowLinear


@functools.cache
def _blocks_are_faster(dtype: torch.dtype) -> bool:
    """Tries one row and eight, as in decoding and in a batch of it; once a process."""
    weight, few = torch.ones(16384, 1024, dtype=dtype), [torch.ones(n, 1024) for n in (1, 8)]

    def multiply(
        linear: nn.Module, around_a_row: Callable[[], AbstractContextManager[None]]
    ) -> None:
        with around_a_row():
            linear(few[0])
        linear(few[1])

    around_a_row = nullcontext if fastest_ways(dtype).as_vector else without_onednn
    blocked = functools.cache(partial(BlockedLinear, weight))  # laid out in the first of five runs
    return faster_with_onednn(
        lambda: multiply(blocked(), nullcontext),
        partial(multiply, NarrowLinear(weight), around_a_row),
    )
