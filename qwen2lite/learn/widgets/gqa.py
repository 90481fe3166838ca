"""Explorer of the KV cache: what it weighs for all five sizes, shared and not, beside the model."""

import dataclasses
import functools
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.qwen2 import Qwen2

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "8 bits": torch.int8}
"""Formats that a cache may have, and a dtype of that size."""
_GIB = 2**30
_KINDS = {
    "a head for each (K = N)": "C3",
    "groups, as published": "C0",
    "one for all (K = 1)": "C2",
}
_LABEL: dict[str, Any] = {
    "ha": "center",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
}


def cache_size(config: Qwen2Config, heads: int, tokens: int, batch: int, number: str) -> int:
    """Bytes of a KV cache, had the model this many key/value heads. Nothing is allocated.

    Args:
        config: gives layers and head size.
        heads: key/value heads.
        tokens: of each text.
        batch: texts read at once.
        number: one of `FORMATS`.
    """
    with_heads = dataclasses.replace(config, num_key_value_heads=heads)
    return KVCache(with_heads, tokens, batch, FORMATS[number], "meta").nbytes


@functools.cache
def model_size(name: str) -> int:
    """Bytes of a published model's weights in bfloat16, counted on one that is never filled."""
    with torch.device("meta"), WithoutInitialising():
        return 2 * sum(weight.numel() for weight in Qwen2(CONFIGS[name]).parameters())


def draw_memory(tokens: int = 131072, batch: int = 1, number: str = "bfloat16") -> None:
    """Bars for all five sizes: the cache with a key head for each query head, with groups, with one.

    Args:
        tokens: of each text.
        batch: texts read at once.
        number: one of `FORMATS`.
    """
    figure, panel = plt.subplots(figsize=(9, 3.8), layout="constrained")
    for place, name in enumerate(CONFIGS):
        weights = model_size(name) / _GIB
        panel.hlines(weights, place - 0.45, place + 0.45, color="black", ls=":")
        sizes = three_caches(name, tokens, batch, number)
        for bar, (label, colour) in enumerate(_KINDS.items()):
            at, size = place + 0.27 * (bar - 1), sizes[bar] / _GIB
            panel.bar(at, size, 0.25, color=colour, label="" if place else label)
            said = f"{size:,.0f}" if size >= 100 else f"{size:.3g}"
            panel.annotate(said, (at, size), (0, 2), textcoords="offset points", **_LABEL)
    panel.plot([], [], "k:", label="the weights, in bfloat16")
    panel.set_yscale("log")
    panel.set_xticks(range(len(CONFIGS)), CONFIGS)
    panel.set(ylabel="GiB", title=finding(tokens, batch, number))
    panel.set_ylim(2e-3, 1e5)  # for every setting, so that the bars move and the weights don't
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    plt.show()


def three_caches(name: str, tokens: int, batch: int, number: str) -> list[int]:
    """Bytes with K = N, as published, and with K = 1."""
    config = CONFIGS[name]
    counts = (config.num_attention_heads, config.num_key_value_heads, 1)
    return [cache_size(config, heads, tokens, batch, number) for heads in counts]


def finding(tokens: int, batch: int, number: str) -> str:
    """What the bars show, in a line: how many models their cache outweighs, unshared and shared."""
    sizes = {name: three_caches(name, tokens, batch, number) for name in CONFIGS}
    unshared, shared = (
        sum(size[kind] > model_size(name) for name, size in sizes.items()) for kind in (0, 1)
    )
    texts = "One text" if batch == 1 else f"{batch} texts"
    return (
        f"{texts} of {tokens:,} tokens, {number}: the cache outweighs {unshared} of 5 models "
        f"unshared, {shared} shared"
    )


def explore_memory() -> None:
    """Sliders over tokens and batch, and the number format: the bars for all five sizes."""
    ipywidgets.interact(
        draw_memory,
        tokens=ipywidgets.SelectionSlider(
            options=[2**power for power in range(10, 18)],
            value=131072,
            description="tokens",
            continuous_update=False,
        ),
        batch=ipywidgets.SelectionSlider(
            options=[1, 2, 4, 8, 16, 32, 64],
            value=1,
            description="batch",
            continuous_update=False,
        ),
        number=ipywidgets.Dropdown(options=list(FORMATS), value="bfloat16", description="numbers"),
    )
