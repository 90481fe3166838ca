"""Explorer of attention: what each token of a sentence looks at, head by head."""

from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch


def draw_heads(
    weights_LNTS: torch.Tensor, tokens: Sequence[str], heads: Sequence[tuple[int, int]]
) -> None:
    """Heat maps of some heads side by side: a row a query, a column a key, dark is much.

    Args:
        weights_LNTS: attention weights of one text, all layers and heads; every row adds up to 1.
        tokens: the text's tokens.
        heads: (layer, head) of each picture, both counted from 0.
    """
    size = 3.4 if len(heads) > 1 else 4.6
    figure, panels = plt.subplots(
        1, len(heads), figsize=(size * len(heads), size + 0.3), squeeze=False, layout="constrained"
    )
    for place, (panel, (layer, head)) in enumerate(zip(panels[0], heads, strict=True)):
        weights_TS = weights_LNTS[layer, head].float()
        picture = _draw_one(panel, weights_TS, tokens)
        panel.set_title(f"layer {layer}, head {head}\n{summary(weights_TS)}", fontsize=9)
        panel.set_xlabel("key: the token looked at")
        if not place:
            panel.set_ylabel("query: the token that looks")
    figure.colorbar(picture, ax=panels[0], label="weight", shrink=0.7)
    plt.show()


def summary(weights_TS: torch.Tensor) -> str:
    """Where a head looks on average, as shares: the first token, the one before, itself."""
    later = weights_TS[1:]
    shares = {
        "first": later[:, 0].mean(),
        "before": later.diagonal().mean(),
        "itself": later.diagonal(1).mean(),
    }
    return ", ".join(f"{name} {float(share):.0%}" for name, share in shares.items())


def _draw_one(panel: Any, weights_TS: torch.Tensor, tokens: Sequence[str]) -> Any:
    seen_TS = torch.ones_like(weights_TS, dtype=torch.bool).tril()
    visible = weights_TS.masked_fill(~seen_TS, float("nan"))
    panel.set_facecolor("0.9")  # grey is the future, which the mask hides
    picture = panel.imshow(visible.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [token.strip() or "␣" for token in tokens]
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    return picture


def explore_attention(
    weights_LNTS: torch.Tensor, tokens: Sequence[str], start: tuple[int, int] = (0, 0)
) -> None:
    """Sliders over layer and head: the heat map of each.

    Args:
        weights_LNTS: see `draw_heads`.
        tokens: the text's tokens.
        start: (layer, head) of the first picture.
    """

    def draw(layer: int, head: int) -> None:
        draw_heads(weights_LNTS, tokens, [(layer, head)])

    layer, head = (
        ipywidgets.IntSlider(value=value, max=count - 1, description=name, continuous_update=False)
        for name, value, count in zip(("layer", "head"), start, weights_LNTS.shape[:2], strict=True)
    )
    ipywidgets.interact(draw, layer=layer, head=head)
