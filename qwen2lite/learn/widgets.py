"""Explorers: pictures of the lessons with a slider. Each has its plain twin in the lesson above it."""

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
        plt.ylim(-0.3, 1.05)
        plt.xlabel("distance between query and key, in tokens")
        plt.ylabel("score, as a share")
        plt.title(f"base {base:,.0f}: mean beyond 2,000 tokens is {scores[2000:].mean():.2f}")
        plt.show()

    slider = ipywidgets.FloatLogSlider(
        value=1e6, base=10, min=2, max=8, step=0.5, description="base", continuous_update=False
    )
    ipywidgets.interact(draw, base=slider)
