"""Explorer of dual chunks: the distance that RoPE shows to each query for each key, as a matrix."""

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator

from qwen2lite.model.dca import dca_distances

_NUMBERS_UP_TO = 20
"""Tokens up to which each cell has room for its number."""


def true_up_to(distances_TS: torch.Tensor) -> int:
    """Tokens of the longest beginning in which every distance is the true one.

    Args:
        distances_TS: from `dca_distances`.
    """
    position_T = torch.arange(len(distances_TS))
    true_TS = position_T[:, None] - position_T
    wrong_T = ((distances_TS != true_TS) & (true_TS >= 0)).any(1)
    return int(wrong_T.int().argmax()) if wrong_T.any() else len(distances_TS)


def draw_distances(length: int = 12, chunk_size: int = 9, local_size: int = 3) -> None:
    """The matrix, a row a query and a column a key; red lines are the borders of the chunks.

    Args:
        length: tokens of the text.
        chunk_size: the largest distance that may occur.
        local_size: distance up to which all stay true; below chunk_size.
    """
    if local_size >= chunk_size:
        print("The window has to be smaller than chunk_size: chunks would have no token.")
        return
    distances_TS = dca_distances(length, chunk_size, local_size)
    chunk_len = chunk_size - local_size
    _, panel = plt.subplots(figsize=(6, 5.4), layout="constrained")
    shown_TS = torch.where(distances_TS < 0, torch.nan, distances_TS.float())
    panel.imshow(shown_TS.numpy(), cmap="Blues", vmin=0)
    if length <= _NUMBERS_UP_TO:
        largest = int(distances_TS.max())
        for query in range(length):
            for key in range(query + 1):
                value = int(distances_TS[query, key])
                colour = "white" if value > 0.6 * largest else "black"
                panel.text(
                    key, query, str(value), ha="center", va="center", color=colour, fontsize=8
                )
    for border in range(chunk_len, length, chunk_len):
        panel.axhline(border - 0.5, color="C3", lw=1)
        panel.axvline(border - 0.5, color="C3", lw=1)
    panel.set(xlabel="key, position in the text", ylabel="query, position in the text")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(
        f"{length} tokens in chunks of {chunk_len}: no distance beyond {int(distances_TS.max())},\n"
        f"and the first {true_up_to(distances_TS)} tokens see only true ones"
    )
    plt.show()


def explore_distances() -> None:
    """Sliders over the text's length, chunk_size and local_size."""
    ranges = {"length": (12, 2, 40), "chunk_size": (9, 2, 40), "local_size": (3, 1, 39)}
    sliders = {
        name: ipywidgets.IntSlider(
            value=value, min=low, max=high, description=name, continuous_update=False
        )
        for name, (value, low, high) in ranges.items()
    }
    ipywidgets.interact(draw_distances, **sliders)
