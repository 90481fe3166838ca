"""Explorer of a model's size: where its parameters sit, for the five sizes and one of your own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.train.cost import parameters

# Okabe and Ito's, which colour-blind people can tell apart.
COLOURS = {
    "embedding": "#0072B2",
    "output": "#56B4E9",
    "attention": "#E69F00",
    "MLP": "#009E73",
    "experts": "#D55E00",
    "shared expert": "#CC79A7",
    "the rest": "0.6",
}


def places(config: Qwen2Config) -> dict[str, int]:
    """Parameters by place; together they are all. The rest are norms, routers and gates.

    Args:
        config: the model's shape.
    """
    size, layers = config.hidden_size, config.num_hidden_layers
    sparse = sum(config.is_sparse(layer) for layer in range(layers))
    width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    found = {
        "embedding": config.vocab_size * size,
        "output": 0 if config.tie_word_embeddings else config.vocab_size * size,
        "attention": layers * (2 * size * (width + kv_width) + width + 2 * kv_width),
        "MLP": (layers - sparse) * 3 * size * config.intermediate_size,
        "experts": sparse * 3 * size * config.num_experts * config.moe_intermediate_size,
        "shared expert": sparse * 3 * size * config.shared_expert_intermediate_size,
    }
    return found | {"the rest": parameters(config) - sum(found.values())}


def at_the_ends(config: Qwen2Config) -> float:
    """Share of all parameters that the embedding and the output matrix have."""
    found = places(config)
    return (found["embedding"] + found["output"]) / parameters(config)


def draw_places(size: str = "qwen2-0.5b", layers: int = 0, rows: int = 0) -> None:
    """A bar for each published size and one for a variant, cut by where the parameters sit.

    Args:
        size: the variant starts from this one.
        layers: of the variant; 0 are as many as published.
        rows: of the variant's embedding; 0 are as many as published.
    """
    config = CONFIGS[size]
    variant = dataclasses.replace(
        config,
        num_hidden_layers=layers or config.num_hidden_layers,
        vocab_size=rows or config.vocab_size,
    )
    _, panel = plt.subplots(figsize=(9, 3.9), layout="constrained")
    shown = CONFIGS | ({"yours": variant} if variant != config else {})
    for row, each in enumerate(shown.values()):
        _draw_bar(panel, row, each)
    panel.set_yticks(range(len(shown)), shown)
    panel.invert_yaxis()
    panel.set(xlim=(0, 119), xlabel="% of all parameters", title=finding(size, variant))
    panel.set_xticks(range(0, 101, 20))
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    panel.figure.legend(
        handles, COLOURS, loc="outside lower center", ncols=7, fontsize=8, frameon=False
    )
    plt.show()


def _draw_bar(panel: Any, row: int, config: Qwen2Config) -> None:
    total, left = parameters(config), 0.0
    for place, count in places(config).items():
        share = 100 * count / total
        panel.barh(row, share, left=left, color=COLOURS[place], edgecolor="white", lw=0.5)
        if share >= 4:
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white"}
            panel.text(left + share / 2, row, f"{share:.0f}", **style)
        left += share
    panel.text(101, row, f"{total / 1e9:.2f} billion", va="center", fontsize=9)


def finding(size: str, variant: Qwen2Config) -> str:
    """What the bars show, in a line: the share at both ends of the chosen model, and of another."""
    other = "qwen2-72b" if size != "qwen2-72b" else "qwen2-0.5b"
    name, its_name = (each.removeprefix("qwen2-").upper() for each in (size, other))
    if variant != CONFIGS[size]:
        return (
            f"{name} with {variant.num_hidden_layers} layers and {variant.vocab_size:,} rows: "
            f"{at_the_ends(variant):.0%} at the ends"
        )
    shares = f"{at_the_ends(variant):.0%} of the {name}, {at_the_ends(CONFIGS[other]):.0%} of the"
    return f"Tables for words are {shares} {its_name}"


def explore_places() -> None:
    """Choose a size and change its layers and rows: the bars, with one more for what you made."""
    menu = ipywidgets.Dropdown(options=list(CONFIGS), value="qwen2-0.5b", description="size")
    ipywidgets.interact(
        draw_places,
        size=menu,
        layers=_slider("layers", 0, 120, lambda value: value),
        rows=_slider("rows", 0, 20, lambda value: value * 16_000),
    )


def _slider(name: str, low: int, high: int, step: Callable[[int], int]) -> Any:
    """Its first place means: as published."""
    options = [("as published", 0)]
    options += [(f"{step(n):,}", step(n)) for n in range(max(1, low), high + 1)]
    return ipywidgets.SelectionSlider(
        options=options, value=0, description=name, continuous_update=False
    )
