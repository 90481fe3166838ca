"""What an examination measures, drawn: scores by several ways, letters taken, options of a question."""

from collections import Counter
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.evaluate.choice import LETTERS, WAYS, Scored, choose
from qwen2lite.evaluate.uncertainty import wilson
from qwen2lite.learn.widgets.colours import BLUE, GREY, ORANGE

COMPARED = {
    "letter": "ln p of the letter",
    "sum": "ln p of the text",
    "token": "ln p of the text, per token",
    "byte": "ln p of the text, per byte",
    "unconditional": "ln p of the text, less ln p without a question",
}
"""What each of `WAYS` compares, as the label of an axis."""


def draw_scores(
    right: Mapping[str, Sequence[bool]], title: str, chance: float | None = None
) -> None:
    """A bar a way with the share of right answers, and the interval that holds the true one.

    Args:
        right: which questions were answered rightly, by the way's name; at most about eight ways.
        title: the finding.
        chance: share that guessing gets, from 0 to 1, if it is to be drawn.
    """
    figure, panel = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for place, answers in enumerate(right.values()):
        share = 100 * sum(answers) / len(answers)
        low, high = (100 * end for end in wilson(sum(answers), len(answers)))
        panel.bar(place, share, 0.6, color=BLUE)
        panel.errorbar(
            place, share, [[share - low], [high - share]], color="black", capsize=6, linewidth=1.2
        )
        panel.text(place - 0.15, share + 2, f"{share:.3g}", ha="center", fontweight="bold")
    if chance is not None:
        panel.axhline(100 * chance, color=ORANGE, linestyle="--", label="guessing")
        figure.legend(loc="outside lower center")
    panel.set_xticks(range(len(right)), right)
    panel.set(ylabel="right answers, %", ylim=(0, 112), yticks=range(0, 101, 20))
    panel.set_title(title)
    plt.show()


def draw_letters(scored: Sequence[Scored], title: str) -> None:
    """How often each letter is the right one, and how often it is the one that is taken.

    Args:
        scored: questions of which the letters were read.
        title: the finding.
    """
    letters = LETTERS[: max(len(one.question.choices) for one in scored)]
    taken = Counter(LETTERS[choose(one)] for one in scored)
    right = Counter(LETTERS[one.question.answer] for one in scored)
    _, panel = plt.subplots(figsize=(8, 2.8), layout="constrained")
    sides = ((right, -0.2, GREY, "right"), (taken, 0.2, BLUE, "taken"))
    for counts, shift, colour, label in sides:
        places = [place + shift for place in range(len(letters))]
        heights = [counts[letter] for letter in letters]
        panel.bar_label(panel.bar(places, heights, 0.38, color=colour, label=label))
    panel.set_xticks(range(len(letters)), letters)
    panel.set(xlabel="letter", ylabel="questions", ylim=(0, 1.12 * len(scored)))
    panel.set_title(title)
    panel.legend(loc="upper right")
    plt.show()


def draw_options(scored: Scored, by: str = "sum") -> None:
    """What one way compares for the options of a question: the longest bar is the answer.

    Logarithms of probabilities have no zero to begin at, so bars begin left of the least.

    Args:
        scored: the question, read for that way.
        by: one of `WAYS`.
    """
    values, taken = list(WAYS[by](scored)), choose(scored, by)
    question = scored.question
    least, width = min(values), max(values) - min(values) or 1.0
    start = least - 0.15 * width
    _, panel = plt.subplots(figsize=(8, 0.5 * len(values) + 1.4), layout="constrained")
    for place, value in enumerate(values):
        colour = BLUE if place == taken else "0.75"
        panel.barh(place, value - start, 0.6, left=start, color=colour)
        panel.text(value + 0.01 * width, place, f"{value:.2f}", va="center")
    names = [f"{LETTERS[n]}. {choice}" for n, choice in enumerate(question.choices)]
    names[question.answer] += "  ✓"
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlim(start, start + 1.3 * width)
    panel.set_xlabel(COMPARED[by])
    verdict = "right" if taken == question.answer else "wrong"
    panel.set_title(f"{question.question}\nBy {by} it takes {LETTERS[taken]}: {verdict}")
    plt.show()


def explore_options(scored: Sequence[Scored], first: int = 0) -> None:
    """Choose a question and a way: `draw_options` of it.

    Args:
        scored: questions; those ways can be chosen that were read for all of them.
        first: number of the question that is shown at first.
    """
    by_text = {one.question.question: one for one in scored}
    ways = [way for way in WAYS if all(_is_read(one, way) for one in scored)]

    def draw(question: str, by: str) -> None:
        draw_options(by_text[question], by)

    ipywidgets.interact(
        draw,
        question=ipywidgets.Dropdown(
            options=list(by_text),
            value=scored[first].question.question,
            layout=ipywidgets.Layout(width="40em"),
        ),
        by=ipywidgets.Dropdown(options=ways, value="sum" if "sum" in ways else ways[0]),
    )


def _is_read(scored: Scored, by: str) -> bool:
    try:
        return choose(scored, by) >= 0
    except ValueError:
        return False
