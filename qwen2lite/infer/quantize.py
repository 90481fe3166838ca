r"""Weights in 8 or 4 bits: whole numbers, and for each row or group the step between two of them.

Only what is stored is rounded; products are computed as before. Decoding waits for memory, so half the
bytes are half the wait. A matrix is [out, in], as in a checkpoint.
"""

import torch

GROUP_SIZE = 32
"""Weights of one row that share a scale and a zero: their 32 bits are one bit a weight."""

_NARROWINGS = (1.0, 0.95, 0.9, 0.85, 0.8)
_ROWS_AT_ONCE = 8192
"""In float32 a whole output layer and what it is compared with would take gigabytes."""


def quantize_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Rounds each row to multiples of its largest weight's 127th part.

    $w \approx s\,c$ with one scale s a row and whole codes c from -127 to 127. Zero stays zero.

    Args:
        weight: [out, in].

    Returns:
        codes, int8, [out, in]; scales, bfloat16, [out].
    """
    # The scale is rounded first, so that codes are chosen for the one that is stored.
    scales = (weight.abs().amax(1).float() / 127).clamp_min(1e-20).bfloat16()
    codes = (weight.float() / scales.float()[:, None]).round_().clamp_(-127, 127)
    return codes.to(torch.int8), scales


def dequantize_int8(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weights that `quantize_int8` stands for, [out, in], float32."""
    return codes.float() * scales.float()[:, None]


def quantize_int4(
    weight: torch.Tensor, group_size: int = GROUP_SIZE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Rounds each group of a row to one of 16 values, evenly spaced.

    $w \approx s\,(c - 8) + z$: codes c from 0 to 15, and a scale s and a zero z a group. The 16 values
    needn't reach from the least weight to the greatest: of a few narrower ranges the one with the
    smallest squared error is taken, which clips an outlier so that all others are finer.

    Args:
        weight: [out, in].
        group_size: neighbours in a row that share s and z; divides in.

    Returns:
        codes, uint8, [out, in]; scales and zeros, bfloat16, [out, in / group_size].

    Raises:
        ValueError: group_size doesn't divide in.
    """
    if weight.shape[1] % group_size:
        raise ValueError(
            f"rows of {weight.shape[1]} weights can't be cut into groups of {group_size}; "
            "choose a group size that divides them, or 8 bits"
        )
    pieces = (_best_codes(rows, group_size) for rows in weight.split(_ROWS_AT_ONCE))
    codes, scales, zeros = (torch.cat(piece) for piece in zip(*pieces, strict=True))
    return codes, scales, zeros


def dequantize_int4(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """The weights that `quantize_int4` stands for, [out, in], float32."""
    groups = codes.unflatten(1, (scales.shape[1], -1)).float() - 8
    return (groups * scales.float()[..., None] + zeros.float()[..., None]).flatten(1)


def _best_codes(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, ...]:
    groups = weight.float().unflatten(1, (-1, group_size))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    best = _round_to_16(groups, low, high, _NARROWINGS[0])
    for narrowing in _NARROWINGS[1:]:
        tried = _round_to_16(groups, low, high, narrowing)
        better = tried[-1] < best[-1]
        best = tuple(torch.where(better, new, old) for new, old in zip(tried, best, strict=True))
    codes, scales, zeros, _ = best
    return codes.flatten(1).to(torch.uint8), scales[..., 0].bfloat16(), zeros[..., 0].bfloat16()


def _round_to_16(
    groups: torch.Tensor, low: torch.Tensor, high: torch.Tensor, narrowing: float
) -> tuple[torch.Tensor, ...]:
    """Codes, scale, zero and squared error of groups, their range made narrower around its middle."""
    scale = ((high - low) * (narrowing / 15)).clamp_min_(1e-20).bfloat16().float()
    # Codes minus 8 run from -8 to 7: the middle of the range lies half a step above z.
    zero = ((low + high + scale) / 2).bfloat16().float()
    steps = ((groups - zero) / scale).round_().clamp_(-8, 7)
    error = (steps * scale).add_(zero).sub_(groups).square_().sum(-1, keepdim=True)
    return steps + 8, scale, zero, error
