"""Explorer of YaRN: how much each pair of a head is slowed down, and where its ramp begins and ends."""

import math

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.model.rope import rotary_frequencies
from qwen2lite.model.yarn import yarn, yarn_ramp

HEAD_DIM, BASE, TRAINED = 64, 1e6, 32_768
"""A head of the 0.5B, its base and its trained length."""


def turns() -> torch.Tensor:
    """How often each pair comes round within the trained length."""
    return rotary_frequencies(HEAD_DIM, BASE) * TRAINED / (2 * math.pi)


def kinds(beta_fast: float, beta_slow: float) -> tuple[int, int, int]:
    """How many pairs are left alone, blended, and slowed down by the whole factor."""
    ramp_R = yarn_ramp(HEAD_DIM, BASE, TRAINED, beta_fast, beta_slow)
    alone, whole = int((ramp_R == 0).sum()), int((ramp_R == 1).sum())
    return alone, len(ramp_R) - alone - whole, whole


def draw_ramp(factor: float, beta_fast: float = 32.0, beta_slow: float = 1.0) -> None:
    """What is left of each pair's frequency, with YaRN and with position interpolation.

    Args:
        factor: how many times longer the text may become.
        beta_fast: turns from which on a pair is left alone.
        beta_slow: turns below which a pair is slowed down by the whole factor.
    """
    frequencies_R = rotary_frequencies(HEAD_DIM, BASE)
    slowed_R, grown = yarn(
        frequencies_R, BASE, factor, TRAINED, beta_fast=beta_fast, beta_slow=beta_slow
    )
    pairs = range(HEAD_DIM // 2)
    plt.figure(figsize=(8, 3.5), layout="constrained")
    plt.plot(pairs, [1 / factor] * len(pairs), "--", color="C3", label="position interpolation")
    plt.plot(pairs, slowed_R / frequencies_R, "o-", ms=4, color="C0", label="YaRN")
    for times, name, side in ((beta_fast, "fast", "right"), (beta_slow, "slow", "left")):
        place = HEAD_DIM * math.log(TRAINED / (2 * math.pi * times)) / (2 * math.log(BASE))
        plt.axvline(place, color="gray", lw=1, ls=":")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        plt.text(place, 1.08, f"β_{name} = {times:.3g}", ha=side, fontsize=9, bbox=box)
    plt.ylim(0, 1.18)
    plt.xlabel("pair of the head (0 is the fastest)")
    plt.ylabel("what is left of the frequency")
    alone, blended, whole = kinds(beta_fast, beta_slow)
    plt.title(
        f"Factor {factor:g}: {alone} pairs stay, {blended} are blended, {whole} divided; "
        f"scores times {grown**2:.2f}"
    )
    plt.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    plt.show()


def explore_ramp() -> None:
    """Sliders over the factor and both ends of the ramp."""
    slider = ipywidgets.FloatLogSlider
    factor = slider(value=4, base=2, min=0, max=5, step=0.5, description="factor")
    fast = slider(value=32, base=2, min=2, max=8, step=0.5, description="β_fast")
    slow = slider(value=1, base=2, min=-3, max=1.5, step=0.5, description="β_slow")
    for one in (factor, fast, slow):
        one.continuous_update = False
    ipywidgets.interact(draw_ramp, factor=factor, beta_fast=fast, beta_slow=slow)
