"""Explorer of RoPE's base: how far each pair turns in a longer text, and who meets new angles."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.model.rope import rotary_frequencies

HEAD_DIM, TRAINED_BASE, TRAINED = 64, 10_000.0, 4096
"""A head of the 0.5B, and the base and length of Qwen2's training before its last phase."""


def circles(base: float, length: int) -> list[float]:
    """How often each pair of a head comes round in so many tokens."""
    return (rotary_frequencies(HEAD_DIM, base).double() * length / (2 * math.pi)).tolist()


def new_angles(base: float, length: int) -> list[int]:
    """Pairs that turn further than they ever did in training, and had not come round there."""
    pairs = zip(circles(TRAINED_BASE, TRAINED), circles(base, length), strict=True)
    return [i for i, (before, now) in enumerate(pairs) if before < 1 and now > before * (1 + 1e-6)]


def draw_circles(base: float, length: int) -> None:
    """How often each pair comes round, in training and in a text of this length with this base.

    Args:
        base: of the longer text.
        length: in tokens.
    """
    before, now, new = (
        circles(TRAINED_BASE, TRAINED),
        circles(base, length),
        new_angles(base, length),
    )
    plt.figure(figsize=(8, 3.5), layout="constrained")
    plt.bar(range(len(before)), before, color="0.8", label="in training: base 10,000, 4,096 tokens")
    for color, label, wanted in (("C0", "seen before", False), ("C3", "new angles", True)):
        chosen = [i for i in range(len(now)) if (i in new) == wanted]
        plt.plot(chosen, [now[i] for i in chosen], "o", color=color, ms=5, label=label)
    plt.axhline(1, color="black", lw=1, ls="--")
    plt.text(0, 1.2, "one full circle", fontsize=9)
    plt.yscale("log")
    plt.ylim(5e-5, 5e4)
    plt.xlabel("pair of the head (0 is the fastest)")
    plt.ylabel("full circles in the text")
    word = "pair meets" if len(new) == 1 else "pairs meet"
    plt.title(
        f"Base {base:,.0f}, {length:,} tokens: {len(new)} {word} angles never seen in training"
    )
    plt.legend(loc="upper right", fontsize=9)
    plt.show()


def explore_circles() -> None:
    """Sliders over base and length: which pairs meet angles that they have never seen?"""
    base = ipywidgets.FloatLogSlider(
        value=1e4, base=10, min=4, max=7, step=0.25, description="base", continuous_update=False
    )
    length = ipywidgets.SelectionSlider(
        options=[2**n for n in range(12, 18)], value=32_768, description="tokens",
        continuous_update=False,
    )  # fmt: skip
    ipywidgets.interact(draw_circles, base=base, length=length)


def draw_by_position(
    curves: Mapping[str, Sequence[float]], width: int, trained: int, title: str
) -> None:
    """Perplexity by position, a line for each model.

    Args:
        curves: perplexities of `width` positions at a time, by the name of the line.
        width: see `perplexity_by_position`.
        trained: length that was trained on, in tokens.
        title: what the picture shows.
    """
    plt.figure(figsize=(8, 3.6), layout="constrained")
    for name, values in curves.items():
        places = [width * (group + 0.5) for group in range(len(values))]
        plt.plot(places, values, "o-", ms=4, label=name)
    plt.axvline(trained, color="gray", ls="--", lw=1, label=f"first trained on {trained} tokens")
    plt.yscale("log")
    plt.yticks([1.5, 2, 3, 5, 10, 15], ["1.5", "2", "3", "5", "10", "15"])
    plt.minorticks_off()
    plt.xlabel("position in the text, in tokens")
    plt.ylabel("perplexity")
    plt.title(title)
    plt.legend(fontsize=9)
    plt.show()
