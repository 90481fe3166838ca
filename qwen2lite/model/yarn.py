r"""YaRN: stretch RoPE over a longer text than the model was trained on.

Pairs that turn many times within the trained length tell neighbours apart and stay as they are.
Pairs that never finish a turn would meet angles they have never seen, and are slowed down by the
factor. Between the two a ramp blends. And because more keys share the attention, scores grow a
little.

Static YaRN has one factor for every text; `transformers` and vLLM run nothing else. Dynamic YaRN, the
paper's other way, takes for each text the factor of its own length (`dynamic_factor`), and leaves a
short one as it was trained. That is for reading a text at once. With a cache it doesn't go: with
every new token the keys of all others would have to be turned anew.
"""

import math
import warnings

import torch


def yarn_ramp(
    head_dim: int,
    rope_theta: float,
    original_max_position_embeddings: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> torch.Tensor:
    r"""How far each pair is slowed down: 0 leaves it alone, 1 divides its frequency by the factor.

    Pair $i = H \ln(L / 2\pi n) / (2 \ln\theta)$ turns n times in L tokens. The ramp climbs between
    the pair that turns beta_fast times and the one that turns beta_slow times. It is straight over
    the *number of the pair*; the paper's equation has it straight over the number of turns. The
    published code does the former, and so do we.

    Args:
        head_dim: H.
        rope_theta: the base.
        original_max_position_embeddings: L, the length that the model was trained on, in tokens.
        beta_fast: turns from which on a pair is left alone.
        beta_slow: turns below which a pair is slowed down by the whole factor.
        truncate: move both ends outwards to whole pairs.

    Returns:
        ramp_R, float32, on the CPU, from 0 to 1.

    Source: arXiv 2309.00071, section 3.2; the published code, for the ramp.
    """

    def pair_that_turns(times: float) -> float:
        turned = original_max_position_embeddings / (2 * math.pi * times)
        return head_dim * math.log(turned) / (2 * math.log(rope_theta))

    low, high = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    pairs_R = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    return ((pairs_R - low) / (high - low)).clamp(0, 1)


def yarn_attention_factor(
    factor: float, mscale: float | None = None, mscale_all_dim: float | None = None
) -> float:
    r"""What cosine and sine are multiplied by: $0.1 \ln(s) + 1$.

    Queries *and* keys carry it, so the scores grow by its square, which is the paper's $1/t$.

    Args:
        factor: s, how many times longer the text may become.
        mscale: with mscale_all_dim, for DeepSeek's models; no Qwen2 has them.
        mscale_all_dim: see mscale.

    Source: arXiv 2309.00071, eq. 22.
    """

    def grown(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if mscale and mscale_all_dim:
        return grown(mscale) / grown(mscale_all_dim)
    return grown(1.0)


def yarn(
    frequencies_R: torch.Tensor,
    rope_theta: float,
    factor: float,
    original_max_position_embeddings: int,
    attention_factor: float | None = None,
    beta_fast: float | None = None,
    beta_slow: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
) -> tuple[torch.Tensor, float]:
    """Slows down the frequencies that the ramp says, and names the attention factor.

    Arguments after the first have the names of `rope_scaling` in config.json.

    Args:
        frequencies_R: from `rotary_frequencies`.
        rope_theta: the base that they were made with.
        factor: how many times longer than trained the text may become.
        original_max_position_embeddings: trained length, in tokens.
        attention_factor: in place of the one that follows from the factor.
        beta_fast: see `yarn_ramp`; None is 32.
        beta_slow: see `yarn_ramp`; None is 1.
        mscale: see `yarn_attention_factor`.
        mscale_all_dim: see `yarn_attention_factor`.
        truncate: see `yarn_ramp`.

    Returns:
        The frequencies, and what cosine and sine are to be multiplied by.

    Raises:
        ValueError: a factor below 1, or a trained length that isn't positive.
    """
    _check(factor, original_max_position_embeddings)
    head_dim = 2 * len(frequencies_R)
    turns = (beta_fast or 32.0, beta_slow or 1.0)
    ramp_R = yarn_ramp(head_dim, rope_theta, original_max_position_embeddings, *turns, truncate)
    slowed_R = frequencies_R / factor * ramp_R + frequencies_R * (1 - ramp_R)
    if attention_factor is None:
        attention_factor = yarn_attention_factor(factor, mscale, mscale_all_dim)
    return slowed_R, attention_factor


def dynamic_factor(length: int, original_max_position_embeddings: int) -> float:
    """The factor for a text of this length that is read at once, without a cache.

    It is 1 for a text within the trained length, and YaRN then changes nothing.

    Args:
        length: tokens of the text.
        original_max_position_embeddings: trained length, in tokens.

    Raises:
        ValueError: either isn't positive.

    Source: arXiv 2309.00071, section 3.3.
    """
    if not length > 0:
        raise ValueError(f"a text of {length} tokens has no factor; it needs at least one token")
    factor = max(1.0, length / max(original_max_position_embeddings, 1))
    _check(factor, original_max_position_embeddings)
    return factor


def warn_if_short(length: int, original_max_position_embeddings: int) -> None:
    """Warns where a text fits the trained length, and would be read better without YaRN.

    The wording holds no number, so that Python shows it once and not for every text.

    Args:
        length: tokens of the text, with those to be generated.
        original_max_position_embeddings: trained length, in tokens.
    """
    if length <= original_max_position_embeddings:
        warnings.warn(
            "this text fits the length that the model was trained on, and YaRN stretches it all "
            "the same, which costs quality; take rope_scaling out of config.json for short texts",
            stacklevel=3,
        )


def _check(factor: float, original_max_position_embeddings: int) -> None:
    if not factor >= 1:
        raise ValueError(
            f"YaRN's factor must be at least 1, got {factor}; "
            "4.0 makes a model of 32768 tokens read 131072"
        )
    if not original_max_position_embeddings > 0:
        raise ValueError(
            "YaRN's original_max_position_embeddings must be the number of tokens the model was "
            f"trained on, got {original_max_position_embeddings}; Qwen2 was trained on 32768"
        )
