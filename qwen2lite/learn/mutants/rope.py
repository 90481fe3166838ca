r"""Wrong versions of the parts in `model/rope.py`, each a mistake that real projects made.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.rope import rotary_frequencies


def exponent_without_two(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The exponent of pair i is i/H and should be 2i/H, so that the last comes near 1/theta."""
    return rope_theta ** -(torch.arange(head_dim // 2, device="cpu") / head_dim)


def divided_by_pairs(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The exponent 2i is divided by H/2, the number of pairs, and should be divided by H."""
    return rope_theta ** -(torch.arange(0, head_dim, 2, device="cpu") / (head_dim // 2))


def spread_to_the_end(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The exponents run from 0 to 1 *including* 1 (linspace); they should stop 2/H before it."""
    return rope_theta ** -torch.linspace(0, 1, head_dim // 2, device="cpu")


def growing(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The frequencies grow from pair to pair: the exponent needs a minus."""
    return rope_theta ** (torch.arange(0, head_dim, 2, device="cpu") / head_dim)


def base_written_in(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The base 10,000 is written in the code; Qwen2's checkpoints have rope_theta = 1,000,000."""
    return rotary_frequencies(head_dim, 10_000.0)


def on_the_default_device(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The model is first built on the "meta" device, whose tensors are empty: say device="cpu"."""
    return rope_theta ** -(torch.arange(0, head_dim, 2) / head_dim)


def rounded_frequencies(head_dim: int, rope_theta: float) -> torch.Tensor:
    """The frequencies went through bfloat16, whose 8 bits are whole turns off far into a text
    (transformers #29496, InternLM #237)."""
    return rotary_frequencies(head_dim, rope_theta).bfloat16().float()


def rounded_positions(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions went through bfloat16, which has no 257: far into a text, neighbours coincide
    (gpt-neox #1016, transformers #29285)."""
    frequencies_H = frequencies_R.repeat(2)
    positions_T = positions_T.to(torch.bfloat16)
    turns_TH = torch.exp(1j * torch.outer(positions_T.to(frequencies_H.dtype), frequencies_H))
    return turns_TH.real, turns_TH.imag


def half_precision_positions(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions went through float16, which has no 2049: far into a text, neighbours
    coincide."""
    angles_TR = positions_T.half()[:, None] * frequencies_R
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def counted_from_zero(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every piece of a text is counted from 0 again, and positions_T is not looked at. With a KV
    cache a piece starts where the last one ended."""
    angles_TR = torch.arange(len(positions_T)).float()[:, None] * frequencies_R
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def tables_for_neighbours(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each angle stands twice in a row (repeat_interleave): that is the interleaved layout. Qwen2's
    weights want the two halves, all angles once and then all again (LLMs-from-scratch #747)."""
    angles_TH = (positions_T.float()[:, None] * frequencies_R).repeat_interleave(2, dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def sine_first(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sine and cosine are returned in the wrong order: cosine comes first."""
    angles_TR = positions_T.float()[:, None] * frequencies_R
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.sin(), angles_TH.cos()


def interleaved(x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    """Every two neighbours are turned together: this is the interleaved layout, as in the paper.
    Qwen2's weights want the two halves: the partner of coordinate i is i + H/2 (many ask about it:
    LLMs-from-scratch #747 and #751, tiny-llm #63)."""
    pairs = cos_TH.shape[-1] // 2
    cos_TR, sin_TR = cos_TH[:, :pairs].to(x_BNTH.dtype), sin_TH[:, :pairs].to(x_BNTH.dtype)
    even_BNTR, odd_BNTR = x_BNTH[..., 0::2], x_BNTH[..., 1::2]
    turned = (even_BNTR * cos_TR - odd_BNTR * sin_TR, odd_BNTR * cos_TR + even_BNTR * sin_TR)
    return torch.stack(turned, dim=-1).flatten(-2)


def neighbour_as_partner(
    x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor
) -> torch.Tensor:
    """The tables are for the two halves, but the partner taken is the neighbour, as in the
    interleaved layout: the two coordinates of a pair then turn by different angles. The partner of
    coordinate i is i + H/2."""
    even_BNTR, odd_BNTR = x_BNTH[..., 0::2], x_BNTH[..., 1::2]
    partner_BNTH = torch.stack((-odd_BNTR, even_BNTR), dim=-1).flatten(-2)
    return x_BNTH * cos_TH.to(x_BNTH.dtype) + partner_BNTH * sin_TH.to(x_BNTH.dtype)


def turned_backwards(
    x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor
) -> torch.Tensor:
    """The pairs turn the wrong way: the minus goes with the second half, cat((-second, first)). A
    model can be trained that way (nanochat is); with Qwen2's weights it is wrong."""
    first_half, second_half = x_BNTH.chunk(2, dim=-1)
    partner_BNTH = torch.cat((second_half, -first_half), dim=-1)
    return x_BNTH * cos_TH.to(x_BNTH.dtype) + partner_BNTH * sin_TH.to(x_BNTH.dtype)


def minus_forgotten(
    x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor
) -> torch.Tensor:
    """The halves are swapped without the minus, so pairs are stretched and not turned. The partner
    is cat((-second, first))."""
    first_half, second_half = x_BNTH.chunk(2, dim=-1)
    partner_BNTH = torch.cat((second_half, first_half), dim=-1)
    return x_BNTH * cos_TH.to(x_BNTH.dtype) + partner_BNTH * sin_TH.to(x_BNTH.dtype)


def sine_and_cosine_swapped(
    x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor
) -> torch.Tensor:
    """Sine and cosine have changed places: cosine multiplies the vector, sine its partner."""
    first_half, second_half = x_BNTH.chunk(2, dim=-1)
    partner_BNTH = torch.cat((-second_half, first_half), dim=-1)
    return x_BNTH * sin_TH.to(x_BNTH.dtype) + partner_BNTH * cos_TH.to(x_BNTH.dtype)


def widened(x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    """A float32 table times a bfloat16 vector is float32, and attention then meets two dtypes:
    bring the tables to the dtype of x, or the result back to it."""
    first_half, second_half = x_BNTH.chunk(2, dim=-1)
    partner_BNTH = torch.cat((-second_half, first_half), dim=-1)
    return x_BNTH * cos_TH + partner_BNTH * sin_TH


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "rotary_frequencies": (
        exponent_without_two,
        divided_by_pairs,
        spread_to_the_end,
        growing,
        base_written_in,
        on_the_default_device,
        rounded_frequencies,
    ),
    "rotary_tables": (
        rounded_positions,
        half_precision_positions,
        counted_from_zero,
        tables_for_neighbours,
        sine_first,
    ),
    "apply_rope": (
        interleaved,
        neighbour_as_partner,
        turned_backwards,
        minus_forgotten,
        sine_and_cosine_swapped,
        widened,
    ),
}
"""The wrong versions of each part."""
