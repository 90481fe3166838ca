"""What the exercise 32_weights asks beside the readers: a number, a matrix, a measurement."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.weights_tasks import MUTANTS, nothing_by_nothing

Part = Callable[..., Any]


def check_bfloat16_value(bfloat16_value: Part) -> Iterator[str]:
    """Numbers by hand, then all signs and sizes."""
    for bits, want in ((0x3FC0, 1.5), (0x3F80, 1.0), (0x4348, 200.0)):
        _require_value(bfloat16_value, bits, want)
    yield "0x3FC0 is 1.5, 0x3F80 is 1, 0x4348 is 200"

    for bits, want in ((0xBF80, -1.0), (0x0000, 0.0), (0xC2F7, -123.5)):
        _require_value(bfloat16_value, bits, want)
    for bits in range(1, 0x7F80, 97):
        value = torch.tensor([bits], dtype=torch.int16).view(torch.bfloat16)
        _require_value(bfloat16_value, bits, float(value))
    yield "negative ones, zero, and 336 others from the smallest to the largest"


def _require_value(part: Part, bits: int, want: float) -> None:
    got = call(part, bits)
    if not isinstance(got, int | float | Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"bfloat16_value returned {describe(got)}; one number was wanted.")
    if float(got) != want:
        why = usual_reason(MUTANTS["bfloat16_value"], float(got), bits)
        raise Mistake(f"0x{bits:04X} is {want:.6g}, and yours is {float(got):.6g}.", why)


def check_mended_matrix(mended_matrix: Part) -> Iterator[str]:
    """Six numbers by hand, then a square matrix, where no shape complains."""
    row = torch.arange(6.0)
    _require_matrix(mended_matrix, row, (3, 2), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    yield "six numbers and the dimensions 3, 2: two rows of three"

    _require_matrix(mended_matrix, row[:4], (2, 2), [[0.0, 1.0], [2.0, 3.0]])
    yield "also where it is square, and no shape could tell"


def _require_matrix(
    part: Part, row: Tensor, dimensions: tuple[int, ...], want: list[list[float]]
) -> None:
    got = call(part, row, dimensions)
    why = usual_reason(MUTANTS["mended_matrix"], got, row, dimensions)
    what = f"{numbers(row)} with the dimensions {dimensions}"
    require_tensor(got, list(reversed(dimensions)), torch.float32, what, why)
    if not same(got.contiguous(), torch.tensor(want)):
        raise Mistake(f"{what} is {want}, and yours is {got.tolist()}.", why)


def check_rounding_error(rounding_error: Part) -> Iterator[str]:
    """A block by hand, random ones in 2 to 8 bits, and a block of zeros."""
    # Two bits have the steps -1, 0 and 1 times the largest number, here -4.
    block = torch.zeros(32)
    block[:3] = torch.tensor([-4.0, 3.0, 0.0])
    _require_error(rounding_error, block, 2, 0.2, "a block of -4, 3 and zeros")
    yield "by hand: 2 bits make -4, 4, 0 of -4, 3, 0, an error of 1/5"

    weights = random_normal(4, 64) * torch.tensor([[1.0], [3.0], [0.1], [10.0]])
    for bits in (2, 3, 4, 5, 6, 8):
        want = _error(weights, bits)
        _require_error(rounding_error, weights, bits, want, "rows of different size")
    yield "a scale for every 32 numbers, in 2 to 8 bits"

    holes = torch.cat((torch.zeros(32), weights.flatten()))
    got = call(rounding_error, holes, 4)
    if not float(got) == float(got):
        raise Mistake("With a block of zeros it is not a number.", told_by(nothing_by_nothing))
    _require_error(rounding_error, holes, 4, _error(weights, 4), "a block of zeros among them")
    yield "a block of zeros does no harm"


def _error(weights: Tensor, bits: int) -> float:
    """Block by block and number by number."""
    lost = 0.0
    for block in weights.flatten().double().split(32):
        step = float(block.abs().max()) / (2 ** (bits - 1) - 1)
        lost += sum((x - round(x / step) * step) ** 2 for x in block.tolist())
    return (lost / float(weights.double().square().sum())) ** 0.5


def _require_error(part: Part, weights: Tensor, bits: int, want: float, what: str) -> None:
    got = call(part, weights, bits)
    if not isinstance(got, float | Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"rounding_error returned {describe(got)}; one number was wanted.")
    value = torch.as_tensor(float(got))
    if not abs(float(value) - want) <= 1e-4 * max(want, 0.01):
        known = [_as_tensor(mutant) for mutant in MUTANTS["rounding_error"]]
        why = usual_reason(known, value, weights, bits)
        raise Mistake(
            f"For {what} in {bits} bits it is {want:.4g}, and yours is {float(value):.4g}.", why
        )


def _as_tensor(mutant: Part) -> Part:
    def answer(*inputs: Any) -> Tensor:
        return torch.as_tensor(mutant(*inputs))

    answer.__doc__ = mutant.__doc__
    return answer
