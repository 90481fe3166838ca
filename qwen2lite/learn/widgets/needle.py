"""Heat maps of needles found, by depth and length, one for each way of reading."""

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch

Grid = Sequence[Sequence[float]]


def draw_grids(
    grids: Mapping[str, Grid],
    lengths: Sequence[int],
    depths: Sequence[float],
    trained: int,
    title: str = "",
) -> None:
    """The share of needles found: a panel a way of reading, a row a depth, a column a length.

    Args:
        grids: from `passkey_recall` or `resumable_recall`, by name: a row a length.
        lengths: of the texts, in tokens.
        depths: from 0, the beginning, to 1.
        trained: trained length; a line stands behind the columns up to it.
        title: what is to be seen; "" names the best way at the last length.
    """
    size = (1.8 + 1.75 * len(grids), 3.2)
    figure, panels = plt.subplots(
        1, len(grids), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for panel, (name, grid) in zip(panels[0], grids.items(), strict=True):
        shares = torch.tensor(grid).T
        picture = panel.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for row, column in torch.cartesian_prod(*map(torch.arange, shares.shape)).tolist():
            share = float(shares[row, column])
            ink = "white" if share > 0.6 else "black"
            panel.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=ink)
        panel.axvline(sum(length <= trained for length in lengths) - 0.5, color="C3", lw=2)
        panel.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=8)
        panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=8)
        panel.set_title(f"{name}\nat {lengths[-1]:,}: {shares[:, -1].mean():.0%}", fontsize=9)
    panels[0][0].set_ylabel("depth of the needle")
    figure.supxlabel("tokens of the text (red line: the trained length)", fontsize=9)
    figure.colorbar(picture, ax=panels[0], label="share of needles found")
    found = {name: sum(grid[-1]) for name, grid in grids.items()}
    best = [name for name in found if found[name] == max(found.values())]
    said = "Needles found, by depth and length"
    if len(best) == 1 < len(found):
        said = f"At {lengths[-1]:,} tokens, {best[0]} finds most"
    figure.suptitle(title or said)
    plt.show()


def explore_grids(
    grids: Mapping[str, Grid], lengths: Sequence[int], depths: Sequence[float], trained: int
) -> None:
    """A list of the ways of reading: choose some and see their maps side by side."""

    def draw(ways: tuple[str, ...]) -> None:
        if ways:
            draw_grids({name: grids[name] for name in ways}, lengths, depths, trained)

    chosen = ipywidgets.SelectMultiple(options=list(grids), value=list(grids)[:2])
    ipywidgets.interact(draw, ways=chosen)
