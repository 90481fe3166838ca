"""Bugs in a model, drawn: what each does to the perplexity, to the answer and to the logits."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.learn.widgets.colours import BLUE, GREEN, GREY, ORANGE

_FAINT = 0.3


@dataclass(frozen=True)
class Tried:
    """What a model with one part exchanged made of a text and of a question."""

    perplexity: float
    answer: str
    off: float
    """Largest difference of a logit from the right model's."""
    wrong: Callable[..., Any] | None = None
    """What was put in; its docstring says what the mistake is. None in the right model."""


def draw_bugs(
    tried: Mapping[str, Tried], right: Tried, title: str | None = None, chosen: str | None = None
) -> None:
    """Perplexity with each bug, a bar a bug; its colour says whether the answer gives it away.

    Args:
        tried: by the bug's name.
        right: the right model.
        title: the finding; None counts the bugs that don't show.
        chosen: a bug's name; all other bars are drawn faintly.
    """
    figure, panel = plt.subplots(figsize=(9, 0.32 * len(tried) + 1.4), layout="constrained")
    same = {name: found.answer == right.answer for name, found in tried.items()}
    for row, (name, found) in enumerate(tried.items()):
        faint = _FAINT if chosen not in (None, name) else 1.0
        colour = BLUE if same[name] else ORANGE
        panel.barh(row, found.perplexity - 1, left=1, color=colour, alpha=faint)
        panel.annotate(f" {_short(found.perplexity)}", (found.perplexity, row), va="center")
    panel.axvline(right.perplexity, color=GREY, linestyle=":")
    panel.set_yticks(range(len(tried)), list(tried))
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlim(1, 60 * max(found.perplexity for found in tried.values()))
    panel.set_xlabel(f"perplexity; dotted: {_short(right.perplexity)}, without a bug")
    for colour, label in ((BLUE, "same answer, word for word"), (ORANGE, "another answer")):
        panel.barh([0], [0], color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=2)
    panel.set_title(title or _finding(tried, right))
    plt.show()


def explore_bugs(tried: Mapping[str, Tried], right: Tried) -> None:
    """Choose a bug: its bar in the picture of `draw_bugs`, what it writes, and what it is.

    Args:
        tried: by the bug's name.
        right: the right model.
    """

    def show(bug: str) -> None:
        found = tried[bug]
        draw_bugs(tried, right, f"{bug}: perplexity {_short(found.perplexity)}", bug)
        print(f"without it: {right.answer!r}\nwith it:    {found.answer!r}\n")
        print(textwrap.fill(" ".join(f"{found.wrong.__doc__}".split()), 95))

    wide = ipywidgets.Layout(width="26em")
    ipywidgets.interact(show, bug=ipywidgets.Dropdown(options=list(tried), layout=wide))


def draw_distances(groups: Mapping[str, Mapping[str, float]], tolerance: float, title: str) -> None:
    """How far the logits are from the right model's, a dot a model.

    Args:
        groups: by the group's name, which is a colour: largest differences of a logit by the models'
            names, top to bottom. What is 0 stands at the left edge.
        tolerance: where a line is drawn.
        title: the finding.
    """
    rows = [(group, name, off) for group, of in groups.items() for name, off in of.items()]
    edge = min(off for *_, off in rows if off) / 10
    figure, panel = plt.subplots(figsize=(9, 0.25 * len(rows) + 1.4), layout="constrained")
    for group, colour in zip(groups, (GREEN, GREY, ORANGE), strict=False):
        dots = [(off or edge, row) for row, (of, _, off) in enumerate(rows) if of == group]
        panel.plot(*zip(*dots, strict=True), "o", color=colour, label=group)
    for row, (*_, off) in enumerate(rows):
        panel.annotate(
            "  " + (f"{off:.2g}" if off else "exactly 0"), (off or edge, row), va="center"
        )
    panel.axvline(tolerance, color=GREY, linestyle=":")
    panel.set_yticks(range(len(rows)), [name for _, name, _ in rows])
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.margins(x=0.15)
    panel.set_xlabel(f"largest difference of a logit; dotted: a tolerance of {tolerance:g}")
    figure.legend(loc="outside lower center", ncols=len(groups))
    panel.set_title(title)
    plt.show()


def _finding(tried: Mapping[str, Tried], right: Tried) -> str:
    same = sum(found.answer == right.answer for found in tried.values())
    calm = sum(found.perplexity < 1.01 * right.perplexity for found in tried.values())
    return (
        f"{same} of {len(tried)} bugs change no word of the answer, "
        f"{calm} cost less than 1 % in perplexity"
    )


def _short(perplexity: float) -> str:
    return f"{perplexity:,.0f}" if perplexity >= 1000 else f"{perplexity:.4g}"
