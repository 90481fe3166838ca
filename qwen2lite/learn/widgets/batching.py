"""Explorer of batches: which text sits on which row, step by step, and what each row may see."""

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator

from qwen2lite.infer.padding import batch_mask

Seat = tuple[int, int, int]
"""Row, first step and the step after the last."""
ANSWERS = (12, 3, 5, 2, 9, 4, 2, 7, 3, 5, 2, 6)
"""Tokens of twelve answers."""


def seating(lengths: tuple[int, ...], rows: int, replaced: bool) -> list[Seat]:
    """Where and when each text is written, in the order of the texts.

    Args:
        lengths: steps that each text takes.
        rows: texts that are written at once.
        replaced: whether the next text takes a row as soon as it is free; else a group begins when
            all texts of the one before it are done.
    """
    seats: list[Seat] = []
    free = [0] * rows
    for number, length in enumerate(lengths):
        row = free.index(min(free)) if replaced else number % rows
        if not replaced and row == 0:
            free = [max(free)] * rows
        seats.append((row, free[row], free[row] + length))
        free[row] += length
    return seats


def steps_of(seats: list[Seat]) -> int:
    """Steps until the last text is done."""
    return max(end for _, _, end in seats)


def draw_seating(lengths: tuple[int, ...] = ANSWERS, rows: int = 4) -> None:
    """Both ways one above the other: a bar is a text, a line a row of the batch.

    Args:
        lengths: see `seating`.
        rows: see `seating`.
    """
    _, panels = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    colours = plt.get_cmap("tab20")
    for panel, replaced in zip(panels, (False, True), strict=True):
        seats = seating(lengths, rows, replaced)
        for number, (row, start, end) in enumerate(seats):
            panel.barh(row, end - start, left=start, color=colours(number % 20), edgecolor="white")
            panel.text((start + end) / 2, row, str(number), ha="center", va="center", fontsize=9)
        steps = steps_of(seats)
        idle = 1 - sum(lengths) / (steps * rows)
        how = "A free row gets the next text" if replaced else "A group waits for its longest"
        panel.set_title(f"{how}: {steps} steps, {idle:.0%} of the places idle")
        panel.set_facecolor("0.93")
        panel.axvline(steps, color="C3", lw=1.5)
        panel.set_yticks(range(rows))
        panel.set_ylabel("row")
        panel.invert_yaxis()
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlim(0, steps_of(seating(lengths, rows, False)) + 0.5)
    plt.show()


def explore_seating() -> None:
    """Sliders over the rows and the longest answer: uneven lengths are what makes a group wait."""

    def draw(rows: int, longest: int) -> None:
        draw_seating((longest, *ANSWERS[1:]), rows)

    rows = ipywidgets.IntSlider(value=4, min=1, max=8, description="rows")
    longest = ipywidgets.IntSlider(value=12, min=1, max=40, description="longest")
    for slider in (rows, longest):
        slider.continuous_update = False
    ipywidgets.interact(draw, rows=rows, longest=longest)


def draw_masks(padding: tuple[int, ...], columns: int) -> None:
    """The masks of some rows side by side: dark is seen, and what is padding is hatched.

    Args:
        padding: places before each text.
        columns: of the batch.
    """
    mask_BTS = batch_mask(torch.tensor(padding), columns, columns)[:, 0]
    figure, panels = plt.subplots(
        1, len(padding), figsize=(2.9 * len(padding), 3.2), squeeze=False, layout="constrained"
    )
    for number, (panel, seen_TS) in enumerate(zip(panels[0], mask_BTS, strict=True)):
        panel.imshow(seen_TS.numpy(), cmap="Blues", vmin=0, vmax=1.3)
        if padding[number]:
            panel.axvspan(-0.5, padding[number] - 0.5, fill=False, hatch="//", ec="0.6", lw=0)
        panel.set_title(f"row {number}: padding {padding[number]}", fontsize=10)
        panel.set_xticks(range(columns))
        panel.set_yticks(range(columns))
        panel.set_xlabel("key: column looked at")
    panels[0][0].set_ylabel("query: column that looks")
    figure.suptitle("No text looks at padding (hatched); padding looks at itself")
    plt.show()
