"""Explorer of a router: which experts each token of a text goes to, layer by layer."""

from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.model.balance import balance
from qwen2lite.model.moe import route


def draw_router(
    logits_LXE: torch.Tensor,
    tokens: Sequence[str],
    num_experts_per_tok: int,
    layers: Sequence[int],
    title: str = "",
) -> None:
    """Heat maps of some layers, one below the other: a column a token, a row an expert, white for an
    expert that the token doesn't use.

    Args:
        logits_LXE: the router's scores of one text, a layer each.
        tokens: the text's tokens.
        num_experts_per_tok: how many experts a token uses.
        layers: of each picture, counted from 0.
        title: what the picture shows.
    """
    experts = logits_LXE.shape[-1]
    width, height = 1.5 + 0.2 * len(tokens), 0.9 + (0.6 + 0.14 * experts) * len(layers)
    figure, panels = plt.subplots(
        len(layers), 1, figsize=(width, height), squeeze=False, sharex=True, layout="constrained"
    )
    for panel, layer in zip(panels[:, 0], layers, strict=True):
        kept_EX = kept(logits_LXE[layer], num_experts_per_tok).T
        shown = kept_EX.masked_fill(kept_EX == 0, float("nan")).numpy()
        picture = panel.imshow(shown, cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
        panel.set_ylabel("expert")
        panel.set_yticks(range(0, experts, 4))
        panel.set_title(summary(logits_LXE[layer], layer, num_experts_per_tok), fontsize=9)
    names = [token.strip() or "␣" for token in tokens]
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    figure.colorbar(picture, ax=panels[:, 0], label="weight", shrink=0.8, aspect=30)
    if title:
        figure.suptitle(title, fontsize=11)
    plt.show()


def kept(logits_XE: torch.Tensor, num_experts_per_tok: int) -> torch.Tensor:
    """What `route` keeps, as one row of all experts a token; 0 for the others."""
    weights, chosen = route(logits_XE.detach(), num_experts_per_tok, False)
    return torch.zeros_like(logits_XE, dtype=torch.float32).scatter(1, chosen, weights)


def summary(logits_XE: torch.Tensor, layer: int, num_experts_per_tok: int) -> str:
    """What a token keeps of its probability on average, and how many the busiest expert serves."""
    share = kept(logits_XE, num_experts_per_tok).sum(1).mean()
    busiest = int(balance(logits_XE, num_experts_per_tok).load_E.argmax())
    served = int((kept(logits_XE, num_experts_per_tok)[:, busiest] > 0).sum())
    experts = logits_XE.shape[1]
    whom = f"expert {busiest} serves {served} of {len(logits_XE)} tokens"
    if num_experts_per_tok == experts:
        whom = "every expert serves every token"
    return (
        f"layer {layer}: {num_experts_per_tok} of {experts} experts keep {share:.0%} of the "
        f"probability; {whom}"
    )


def explore_router(
    logits_LXE: torch.Tensor, tokens: Sequence[str], num_experts_per_tok: int
) -> None:
    """Sliders over the layer and over how many experts a token may use.

    Args:
        logits_LXE: see `draw_router`.
        tokens: see `draw_router`.
        num_experts_per_tok: where the slider begins: what the model was trained with.
    """

    def draw(layer: int, k: int) -> None:
        draw_router(logits_LXE, tokens, k, [layer])

    layers, experts = logits_LXE.shape[0], logits_LXE.shape[-1]
    ipywidgets.interact(
        draw,
        layer=ipywidgets.IntSlider(max=layers - 1, continuous_update=False),
        k=ipywidgets.IntSlider(
            value=num_experts_per_tok, min=1, max=experts, continuous_update=False
        ),
    )
