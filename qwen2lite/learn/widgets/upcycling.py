"""Explorer of the cut: which expert comes out of which copy of a dense MLP, and what is left over."""

from math import ceil

import ipywidgets
import matplotlib.pyplot as plt

Piece = tuple[int, int, int, int]
"""Copy, first column in it, number of columns, and the expert that gets them; -1 is left over."""


def pieces(dense_width: int, width: int, experts: int, cut: str) -> list[Piece]:
    """How the copies are divided, from the first column of the first one to the last of the last.

    Args:
        dense_width: columns of a copy.
        width: columns of an expert.
        experts: how many.
        cut: "across" the copies, laid end to end, or "within" each; see `Recipe`.
    """
    usable = dense_width if cut == "across" else dense_width // width * width
    found: list[Piece] = []
    for copy in range(ceil(experts * width / usable)):
        column = 0
        while column < usable and copy * usable + column < experts * width:
            expert, begun = divmod(copy * usable + column, width)
            length = min(width - begun, usable - column)
            found.append((copy, column, length, expert))
            column += length
        if column < dense_width:
            found.append((copy, column, dense_width - column, -1))
    return found


def draw_cut(dense_width: int, width: int, experts: int, cut: str, title: str = "") -> None:
    """A bar for each copy, and in it the experts by number; two colours where an expert has two pieces.

    Args:
        dense_width: see `pieces`.
        width: see `pieces`.
        experts: see `pieces`.
        cut: see `pieces`.
        title: what the picture shows; "" says the numbers.
    """
    found = pieces(dense_width, width, experts, cut)
    copies = found[-1][0] + 1
    parts = [expert for *_, expert in found]
    rows = min(0.32 * copies, 5.4)  # inches; many copies have to fit on a screen
    _, panel = plt.subplots(figsize=(9, 1.2 + rows), layout="constrained")
    for copy, start, length, expert in found:
        colour = "0.85" if expert < 0 else "tab:orange" if parts.count(expert) > 1 else "tab:blue"
        panel.barh(copy, length, left=start, color=colour, edgecolor="white", height=0.85)
        if expert >= 0 and length > dense_width / 40:
            place = start + length / 2
            panel.text(
                place,
                copy,
                str(expert),
                ha="center",
                va="center",
                color="white",
                fontsize=min(8, 360 // copies),
            )
    left = sum(length for _, _, length, expert in found if expert < 0)
    said = (
        f"{experts} expert{'s' * (experts > 1)} of {width:,} columns: {copies} "
        f"{'copies' if copies > 1 else 'copy'}, {left:,} columns left over"
    )
    panel.set_title(title or said, fontsize=11)
    numbered = range(0, copies, 1 + copies // 25)
    panel.set_yticks(numbered, [str(copy + 1) for copy in numbered])
    panel.set(xlabel="column of the shuffled copy", ylabel="copy")
    panel.set(xlim=(0, dense_width), ylim=(copies - 0.5, -0.5))
    plt.show()


def explore_cut(dense_width: int, width: int, experts: int) -> None:
    """Sliders over the experts' width and number, and a choice of how the copies are cut.

    Args:
        dense_width: see `pieces`.
        width: where its slider begins.
        experts: where its slider begins.
    """

    def draw(width: int, experts: int, cut: str) -> None:
        draw_cut(dense_width, width, experts, cut)

    step = max(1, dense_width // 44)
    ipywidgets.interact(
        draw,
        width=ipywidgets.IntSlider(
            value=width, min=2 * step, max=dense_width, step=step, continuous_update=False
        ),
        experts=ipywidgets.IntSlider(value=experts, min=1, max=64, continuous_update=False),
        cut=ipywidgets.Dropdown(options=("across", "within"), description="cut"),
    )
