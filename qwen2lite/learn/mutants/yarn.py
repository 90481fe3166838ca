r"""Wrong versions of the parts in `model/yarn.py`, some of them from released libraries.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from qwen2lite.model.rope import rotary_frequencies
from qwen2lite.model.yarn import yarn, yarn_attention_factor, yarn_ramp

Tensor = torch.Tensor
Stretched = tuple[Tensor, float]


def straight_over_turns(
    head_dim: int,
    rope_theta: float,
    length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    """The ramp is straight over the number of turns. The paper's equation has it so; the code that
    the models were run with has it straight over the number of the pair."""
    turns_R = length * rotary_frequencies(head_dim, rope_theta) / (2 * math.pi)
    return 1 - ((turns_R - beta_slow) / (beta_fast - beta_slow)).clamp(0, 1)


def not_clamped(
    head_dim: int,
    rope_theta: float,
    length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    """The ramp runs on below 0 and above 1, so the fastest pairs are sped up and the slowest even
    turn backwards: clamp it to 0 … 1."""
    pairs = [
        head_dim * math.log(length / (2 * math.pi * times)) / (2 * math.log(rope_theta))
        for times in (beta_fast, beta_slow)
    ]
    low, high = (math.floor(pairs[0]), math.ceil(pairs[1])) if truncate else pairs
    low, high = max(low, 0), min(high, head_dim - 1)
    return (torch.arange(head_dim // 2, device="cpu") - low) / (high - low)


def upside_down(head_dim: int, rope_theta: float, length: int, *rest: Any) -> Tensor:
    """The fast pairs are slowed down and the slow ones left alone. It is the other way about: the
    slow ones would meet angles that they have never seen."""
    return 1 - yarn_ramp(head_dim, rope_theta, length, *rest)


def turns_of_one_radian(head_dim: int, rope_theta: float, length: int, *rest: Any) -> Tensor:
    """A turn is taken for one radian. It has 2π: pair i turns L · f / 2π times in L tokens."""
    return yarn_ramp(head_dim, rope_theta, round(length * 2 * math.pi), *rest)


def ends_between_pairs(
    head_dim: int,
    rope_theta: float,
    length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    """The ends of the ramp stay between two pairs. With truncate the lower is rounded down to a
    whole pair, the upper up."""
    return yarn_ramp(head_dim, rope_theta, length, beta_fast, beta_slow, truncate=False)


def ends_at_the_last_pair(head_dim: int, rope_theta: float, length: int, *rest: Any) -> Tensor:
    """The ramp ends at the last pair, H/2 - 1, at the latest. The published code lets it run on to
    H - 1, so that the last pair may stand on the ramp, and Qwen's models were run with the code."""
    return _ramp_until(head_dim // 2 - 1, head_dim, rope_theta, length, *rest)


def ends_anywhere(head_dim: int, rope_theta: float, length: int, *rest: Any) -> Tensor:
    """The ramp ends where the formula says, however far behind the last pair that is: H - 1 at most."""
    return _ramp_until(math.inf, head_dim, rope_theta, length, *rest)


def _ramp_until(
    last: float,
    head_dim: int,
    rope_theta: float,
    length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    low, high = (
        head_dim * math.log(length / (2 * math.pi * times)) / (2 * math.log(rope_theta))
        for times in (beta_fast, beta_slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, last)
    pairs_R = torch.arange(head_dim // 2, device="cpu")
    return ((pairs_R - low) / max(high - low, 0.001)).clamp(0, 1)


def _yarn_with(wrong_ramp: Callable[..., Tensor]) -> Callable[..., Stretched]:
    """yarn with a wrong ramp in it, under the ramp's name and docstring."""

    def stretched(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
        length, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        ramp_R = wrong_ramp(2 * len(frequencies_R), rope_theta, length)
        slowed_R = frequencies_R / factor * ramp_R + frequencies_R * (1 - ramp_R)
        return slowed_R, yarn(frequencies_R, rope_theta, **scaling)[1]

    stretched.__name__, stretched.__doc__ = wrong_ramp.__name__, wrong_ramp.__doc__
    return stretched


def positions_divided(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """Every frequency is divided by the factor, which is to divide the positions: neighbours then
    look alike. YaRN's ramp leaves the fast pairs alone."""
    _, attention_factor = yarn(frequencies_R, rope_theta, **scaling)
    return frequencies_R / scaling["factor"], attention_factor


def base_raised(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The base was raised, so that the slowest pair is slowed down by the factor. That is the
    "NTK-aware" method; YaRN keeps the base and blends by its ramp."""
    head_dim = 2 * len(frequencies_R)
    raised = rope_theta * scaling["factor"] ** (head_dim / (head_dim - 2))
    _, attention_factor = yarn(frequencies_R, rope_theta, **scaling)
    return rotary_frequencies(head_dim, raised), attention_factor


def nothing_stretched(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """Nothing is stretched, as if the factor were 1. transformers 4.51 to 4.55 did that with Qwen2's
    own recipe: they put max_position_embeddings / L in the place of the factor."""
    return yarn(frequencies_R, rope_theta, **scaling | {"factor": 1.0})


def ramp_for_the_longer_text(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The ramp counts turns within the length that the text may now have. They count within the
    length that the model was *trained* on (transformers 4.45 to 4.50 could take the wrong one)."""
    longer = round(scaling["factor"] * scaling["original_max_position_embeddings"])
    wrong = scaling | {"original_max_position_embeddings": longer}
    return yarn(frequencies_R, rope_theta, **wrong)


def factor_for_both(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The attention factor is squared already. Queries and keys both are multiplied by it, so the
    scores get the square by themselves."""
    slowed_R, attention_factor = yarn(frequencies_R, rope_theta, **scaling)
    return slowed_R, attention_factor**2


def factor_once(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The attention factor is its own square root, so that the scores grow by 0.1 ln(s) + 1. They
    are to grow by the square of that: it goes on the queries and on the keys."""
    slowed_R, attention_factor = yarn(frequencies_R, rope_theta, **scaling)
    return slowed_R, math.sqrt(attention_factor)


def factor_forgotten(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The attention factor is 1. More keys share the attention of a longer text, and without
    0.1 ln(s) + 1 it is spread too thin."""
    return yarn(frequencies_R, rope_theta, **scaling)[0], 1.0


def given_factor_ignored(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """An attention_factor that was given is not used; it goes before the one that follows from the
    factor."""
    slowed_R, _ = yarn(frequencies_R, rope_theta, **scaling)
    return slowed_R, yarn_attention_factor(scaling["factor"])


def on_the_default_device(frequencies_R: Tensor, rope_theta: float, **scaling: Any) -> Stretched:
    """The ramp is made without saying where. The model is first built on the "meta" device, whose
    tensors are empty: say device="cpu"."""
    slowed_R, attention_factor = yarn(frequencies_R, rope_theta, **scaling)
    return torch.empty(len(slowed_R)).copy_(slowed_R), attention_factor


_RAMPS = (
    straight_over_turns,
    not_clamped,
    upside_down,
    turns_of_one_radian,
    ends_between_pairs,
)

MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "yarn_ramp": (*_RAMPS, ends_at_the_last_pair, ends_anywhere),
    "yarn": (
        positions_divided,
        base_raised,
        nothing_stretched,
        ramp_for_the_longer_text,
        factor_for_both,
        factor_once,
        factor_forgotten,
        given_factor_ignored,
        on_the_default_device,
        *map(_yarn_with, _RAMPS),
    ),
}
"""The wrong versions of each part."""
