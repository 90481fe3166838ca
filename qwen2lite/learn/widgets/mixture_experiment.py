"""Explorer of a mixture of two domains: what was measured, the laws, and where their sum is lowest."""

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np

from qwen2lite.train.mixing import MixingLaw

_COLOURS = ("tab:blue", "tab:orange")


def draw_choice(
    shares: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    laws: Mapping[str, MixingLaw],
    weight: float,
) -> None:
    """Losses of two domains over the share of the second, their laws, and the weighted sum of these.

    Args:
        shares: of the second domain in each run, rising.
        losses: of each domain in each run.
        laws: of each domain, of the shares of the first and the second.
        weight: how much the second domain counts, from 0 to 1.
    """
    plt.figure(figsize=(7.5, 3.6), layout="constrained")
    at = np.linspace(shares[0], shares[-1], 81)
    names = list(laws)
    for name, colour in zip(names, _COLOURS, strict=True):
        plt.plot(shares, losses[name], "o", color=colour, label=f"{name}, measured")
        plt.plot(
            at,
            [laws[name]((1 - s, s)) for s in at],
            color=colour,
            linewidth=1,
            label=f"{name}, the law",
        )
    sums = weighted(laws, weight, at)
    lowest = int(np.argmin(sums))
    plt.plot(
        at, sums, color="black", label=f"{1 - weight:.2f} {names[0]} + {weight:.2f} {names[1]}"
    )
    plt.plot(at[lowest], sums[lowest], "v", color="black", markersize=9)
    low, high = flat(at, sums, 0.05)
    plt.axvspan(low, high, color="0.9", label="within 0.05 of the lowest")
    plt.xlabel(f"share of {names[1]} in what is read")
    plt.ylabel("held-out loss, nats a token")
    share = f"best at {at[lowest]:.2f} of what is read ({low:.2f} to {high:.2f} will do)"
    plt.title(f"{names[1].capitalize()} count {weight:.2f}: {share}")
    plt.legend(fontsize=8)
    plt.show()


def weighted(laws: Mapping[str, MixingLaw], weight: float, shares: np.ndarray) -> np.ndarray:
    """The expected losses of two domains at shares of the second, as one sum."""
    first, second = laws.values()
    return np.array(
        [(1 - weight) * first((1 - s, s)) + weight * second((1 - s, s)) for s in shares]
    )


def flat(shares: np.ndarray, sums: np.ndarray, more: float) -> tuple[float, float]:
    """From where to where the sum is at most that much above its lowest."""
    near = shares[sums <= sums.min() + more]
    return float(near[0]), float(near[-1])


def explore_choice(
    shares: Sequence[float], losses: Mapping[str, Sequence[float]], laws: Mapping[str, MixingLaw]
) -> None:
    """A slider for how much the second domain counts.

    Args:
        shares: see `draw_choice`.
        losses: see `draw_choice`.
        laws: see `draw_choice`.
    """

    def draw(weight: float) -> None:
        draw_choice(shares, losses, laws, weight)

    slider = ipywidgets.FloatSlider(value=0.5, min=0.0, max=1.0, step=0.05, continuous_update=False)
    ipywidgets.interact(draw, weight=slider)
