"""Wrong answers to the exercise 52_yarn beside the parts: growth of the scores, and angles."""

import math
from collections.abc import Callable
from typing import Any

import torch


def not_squared(factor: float) -> float:
    """This is what cosine and sine are multiplied by. Queries *and* keys carry it, so a score, their
    product, grows by its square."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def with_log10(factor: float) -> float:
    """The logarithm is that to the base 10. The paper's is the natural one, `math.log`."""
    return (0.1 * math.log10(factor) + 1) ** 2 if factor > 1 else 1.0


def one_forgotten(factor: float) -> float:
    """The 1 is missing, so the scores nearly vanish: it is 0.1 ln(s) + 1."""
    return (0.1 * math.log(factor)) ** 2


def divided_and_clamped(
    positions_T: torch.Tensor,
    frequencies_R: torch.Tensor,
    ramp_R: torch.Tensor,
    factor: float,
    trained: int,
) -> torch.Tensor:
    """*Positions* are divided, for all pairs, and cut off at the trained length. Neighbours then look
    alike, and what is behind the end all stands in one place (LLMs-from-scratch #939): each
    pair has a frequency of its own, and no position changes."""
    squeezed_T = (positions_T / factor).clamp(max=trained - 1)
    return squeezed_T[:, None] * frequencies_R


def all_slowed_down(
    positions_T: torch.Tensor,
    frequencies_R: torch.Tensor,
    ramp_R: torch.Tensor,
    factor: float,
    trained: int,
) -> torch.Tensor:
    """All pairs are slowed down alike: that is position interpolation. YaRN's ramp leaves the fast
    pairs alone, where it is 0."""
    return positions_T[:, None] * frequencies_R / factor


def ramp_the_other_way(
    positions_T: torch.Tensor,
    frequencies_R: torch.Tensor,
    ramp_R: torch.Tensor,
    factor: float,
    trained: int,
) -> torch.Tensor:
    """The fast pairs are slowed down and the slow ones aren't. Where the ramp is 1, the frequency is
    divided; where it is 0, it stays."""
    slowed_R = frequencies_R * ramp_R + frequencies_R / factor * (1 - ramp_R)
    return positions_T[:, None] * slowed_R


def only_clamped(
    positions_T: torch.Tensor,
    frequencies_R: torch.Tensor,
    ramp_R: torch.Tensor,
    factor: float,
    trained: int,
) -> torch.Tensor:
    """Positions are still cut off at the trained length, so all tokens behind it stand in one place.
    With slower frequencies they may go as far as the text does."""
    slowed_R = frequencies_R / factor * ramp_R + frequencies_R * (1 - ramp_R)
    return positions_T.clamp(max=trained - 1)[:, None] * slowed_R


def clamped_further_out(
    positions_T: torch.Tensor,
    frequencies_R: torch.Tensor,
    ramp_R: torch.Tensor,
    factor: float,
    trained: int,
) -> torch.Tensor:
    """Positions are cut off at factor times the trained length. That is how far the model may be
    asked to read, and no reason to put all that follows in one place."""
    slowed_R = frequencies_R / factor * ramp_R + frequencies_R * (1 - ramp_R)
    return positions_T.clamp(max=factor * trained - 1)[:, None] * slowed_R


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "score_growth": (not_squared, with_log10, one_forgotten),
    "mended_angles": (
        divided_and_clamped,
        all_slowed_down,
        ramp_the_other_way,
        only_clamped,
        clamped_further_out,
    ),
}
"""The wrong versions of each task."""
