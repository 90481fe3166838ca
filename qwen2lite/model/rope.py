r"""Rotary position embedding: a token's position is an angle, and attention sees only differences.

A head of H numbers is read as R = H/2 points in the plane. The token at position t turns point i by
t times its frequency. Turning both a query and a key leaves their dot product a function of
*how far apart* they are.
"""

import torch


def rotary_frequencies(head_dim: int, rope_theta: float) -> torch.Tensor:
    r"""Angle, in radians per token, by which each of the R = H/2 pairs of a head turns.

    $f_i = \theta^{-2i/H}$: the first pair turns one radian per token, the last so slowly that it
    tells near from far. Always float32: bfloat16 has 8 bits, not enough to tell position 1000
    from 1001.

    Args:
        head_dim: H, even.
        rope_theta: the base; 10,000 in most of Qwen2's training, 1,000,000 in the checkpoints.

    Returns:
        frequencies_R, float32, on the CPU.

    Raises:
        ValueError: head_dim is odd.

    Source: arXiv 2104.09864, section 3.2.2; base: arXiv 2407.10671, section 3.2.
    """
    if head_dim % 2:
        raise ValueError(f"RoPE turns pairs of numbers: head_dim must be even, got {head_dim}")
    exponents_R = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    return rope_theta**-exponents_R


def rotary_tables(
    positions_T: torch.Tensor, frequencies_R: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every angle, each written twice: once for each half of the head.

    Args:
        positions_T: position of each token, counted from 0.
        frequencies_R: radians per token.

    Returns:
        cos_TH and sin_TH, float32.
    """
    angles_TR = positions_T.float()[:, None] * frequencies_R
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def apply_rope(x_BNTH: torch.Tensor, cos_TH: torch.Tensor, sin_TH: torch.Tensor) -> torch.Tensor:
    r"""Turns each pair of every head by the angle of its position.

    The partner of coordinate i is i + H/2, not i + 1: the checkpoint wants the two *halves* paired
    ("half-split"), the original paper pairs neighbours ("interleaved"). Both are RoPE; they differ
    by a permutation of the rows of the query and key projections.

    $(a, b) \mapsto (a \cos\phi - b \sin\phi,\; b \cos\phi + a \sin\phi)$.

    Args:
        x_BNTH: queries or keys; N may also be the key/value heads.
        cos_TH: from `rotary_tables`.
        sin_TH: from `rotary_tables`.

    Returns:
        The turned tensor, same shape and dtype. Lengths of vectors don't change.

    Source: arXiv 2104.09864, eq. 34, in the half-split layout of the published checkpoints.
    """
    first_half, second_half = x_BNTH.chunk(2, dim=-1)
    partner_BNTH = torch.cat((-second_half, first_half), dim=-1)
    return x_BNTH * cos_TH.to(x_BNTH.dtype) + partner_BNTH * sin_TH.to(x_BNTH.dtype)
