"""Explorer of the MLP: which neurons fire at which token, layer by layer."""

from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch


def draw_activations(
    h_LTF: torch.Tensor, tokens: Sequence[str], layer: int, rows: int = 12
) -> None:
    """Heat map of a layer's strongest neurons: a row a neuron, a column a token, red is positive.

    Args:
        h_LTF: activations, silu(gate) times up, of one text in all layers.
        tokens: the text's tokens.
        layer: which one to draw, from 0.
        rows: neurons to show, the one with the largest activation first.
    """
    h_TF = h_LTF[layer].float()
    strongest = h_TF.abs().amax(0).topk(min(rows, h_TF.shape[1])).indices
    limit = float(h_TF.abs().max())
    figure, panel = plt.subplots(figsize=(9, 3.8), layout="constrained")
    picture = panel.imshow(
        h_TF[:, strongest].T.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
    )
    names = [token.strip() or "␣" for token in tokens]
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(strongest)), strongest.tolist(), fontsize=8)
    panel.set(xlabel="token", ylabel="neuron", title=f"layer {layer}: {concentration(h_TF)}")
    figure.colorbar(picture, ax=panel, label="activation")
    plt.show()


def concentration(h_TF: torch.Tensor) -> str:
    """How few neurons do most of the work, in words: the share of the squares in the top tenth."""
    tenth = max(1, h_TF.shape[1] // 10)
    squares_TF = h_TF.square().sort(-1, descending=True).values
    share = (squares_TF[:, :tenth].sum(-1) / squares_TF.sum(-1)).mean()
    return f"at each token a tenth of {h_TF.shape[1]:,} neurons holds {float(share):.0%} of the squares"


def explore_activations(h_LTF: torch.Tensor, tokens: Sequence[str], start: int = 0) -> None:
    """Sliders over the layer and the number of neurons: the heat map of each.

    Args:
        h_LTF: see `draw_activations`.
        tokens: the text's tokens.
        start: layer of the first picture.
    """

    def draw(layer: int, rows: int) -> None:
        draw_activations(h_LTF, tokens, layer, rows)

    layer = ipywidgets.IntSlider(
        value=start, max=len(h_LTF) - 1, description="layer", continuous_update=False
    )
    rows = ipywidgets.IntSlider(
        value=12, min=4, max=24, description="neurons", continuous_update=False
    )
    ipywidgets.interact(draw, layer=layer, rows=rows)
