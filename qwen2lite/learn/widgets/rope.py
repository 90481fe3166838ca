"""Explorers of RoPE: the hands of the clock, and how a score falls with distance."""

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.model.rope import apply_rope, rotary_frequencies, rotary_tables


def explore_distance() -> None:
    """Slider over RoPE's base: how the score of equal vectors falls with their distance."""
    distances = torch.arange(0, 4096)
    ones_BNTH = torch.ones(1, 1, len(distances), 64)

    def draw(base: float) -> None:
        tables = rotary_tables(distances, rotary_frequencies(64, base))
        scores = apply_rope(ones_BNTH, *tables)[0, 0].mean(-1)
        plt.figure(figsize=(7, 3))
        plt.plot(distances, scores, lw=1)
        plt.ylim(-0.4, 1.05)
        plt.xlabel("distance between query and key, in tokens")
        plt.ylabel("score, as a share")
        plt.title(f"base {base:,.0f}: mean beyond 2,000 tokens is {scores[2000:].mean():.2f}")
        plt.show()

    slider = ipywidgets.FloatLogSlider(
        value=1e6, base=10, min=2, max=8, step=0.5, description="base", continuous_update=False
    )
    ipywidgets.interact(draw, base=slider)


def draw_dials(query_at: int, key_at: int) -> None:
    """Four pairs of a head as clocks, a hand for the query's position and one for the key's.

    Args:
        query_at: position of the query, in tokens.
        key_at: position of the key.
    """
    frequencies_R = rotary_frequencies(64, 1e6)
    figure, dials = plt.subplots(1, 4, figsize=(9, 2.7), subplot_kw={"projection": "polar"})
    for dial, pair in zip(dials, (0, 3, 6, 9), strict=True):
        for at, name, color in ((query_at, "query", "C0"), (key_at, "key", "C1")):
            angle = float(at * frequencies_R[pair])
            dial.annotate(
                "", (angle, 1), (0, 0), arrowprops={"arrowstyle": "->", "color": color, "lw": 2}
            )
            dial.plot([], [], color=color, label=f"{name} at {at}")
        dial.set(xticklabels=[], yticks=[])
        dial.set_title(f"pair {pair}: {float(frequencies_R[pair]):.2f} rad a token", fontsize=9)
    score = ((query_at - key_at) * frequencies_R).cos().mean()
    apart, pairs = abs(query_at - key_at), len(frequencies_R)
    said = f"{apart} tokens apart: score over all {pairs} pairs {score:.3f} of at most 1"
    figure.suptitle(said, y=1.04)
    figure.legend(*dials[0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
    plt.show()


def explore_dials() -> None:
    """Sliders over both positions: hands turn, and the score heeds only their distance."""
    query_at, key_at = (
        ipywidgets.IntSlider(value=v, max=100, description=name, continuous_update=False)
        for v, name in ((8, "query at"), (3, "key at"))
    )
    ipywidgets.interact(draw_dials, query_at=query_at, key_at=key_at)
