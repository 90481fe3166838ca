"""Drafts in pictures: a text token by token, who wrote which, and the best length of a draft.

`explore_speed` and its static twin `draw_speed` compute: guesses are taken to be right or wrong
independently of one another, each with the same share. Real ones aren't.
"""

from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Step = tuple[Sequence[int], Sequence[int]]
"""The guesses of one step, and the tokens that it wrote."""

GUESSED, REPLACED, OWN = "#b7e1cd", "#f4b6b0", "#bcd4f2"
_WIDTH = 84
"""Characters in a line of the picture."""
LENGTHS = range(17)
"""Of drafts, in guesses; 0 is none."""


def expected_tokens(share: float, length: int) -> float:
    """Tokens a step writes on average, its own included: share⁰ + share¹ + … + shareˡᵉⁿᵍᵗʰ.

    Args:
        share: of guesses that are right, each independently of the others.
        length: guesses in a draft.

    Source: arXiv 2211.17192, eq. 1.
    """
    return sum(share**n for n in range(length + 1))


def speed(share: float, length: int, ratio: float) -> float:
    """Tokens in the time in which one is written without drafts.

    Args:
        share: see `expected_tokens`.
        length: see `expected_tokens`.
        ratio: what a guess takes of the time that a step of the model takes.

    Source: arXiv 2211.17192, theorem 3.8.
    """
    return expected_tokens(share, length) / (1 + ratio * length)


def best_draft(share: float, ratio: float) -> int:
    """The fastest of `LENGTHS`; 0 where drafts don't pay."""
    return max(LENGTHS, key=lambda length: speed(share, length, ratio))


def draw_speed(share: float = 0.9, ratio: float = 0.5) -> None:
    """Speed over the length of a draft, the best one marked, with those of other shares in grey.

    Args:
        share: see `expected_tokens`.
        ratio: see `speed`.
    """
    figure, panel = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
    for other in (0.5, 0.7, 0.8, 0.9, 1.0):
        speeds = [speed(other, length, ratio) for length in LENGTHS]
        panel.plot(LENGTHS, speeds, color="0.8", lw=1)
        panel.annotate(f"{other:.0%}", (LENGTHS[-1], speeds[-1]), (10, 0), color="0.5", va="center",
                       textcoords="offset points", annotation_clip=False)  # fmt: skip
    best, speeds = best_draft(share, ratio), [speed(share, n, ratio) for n in LENGTHS]
    panel.plot(LENGTHS, speeds, "o-", color="C0", label=f"{share:.0%} of the guesses are right")
    panel.plot(
        best, speeds[best], "*", color="C3", markersize=16, label=f"the best of these: {best}"
    )
    panel.axhline(1, color="0.3", ls=":", lw=1)
    panel.set_xlabel("guesses in a draft")
    panel.set_ylabel("speed, without drafts = 1")
    panel.set_ylim(0, 1.08 * max(max(speeds), speed(1.0, LENGTHS[-1], ratio), 1))
    panel.set_xlim(-0.5, LENGTHS[-1] + 1.5)
    panel.set_xticks(LENGTHS)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    panel.set_title(_finding(share, ratio, best))
    plt.show()


def _finding(share: float, ratio: float, best: int) -> str:
    where = f"A guess takes {ratio:.2f} of a step, {share:.0%} are right"
    if not best:
        return f"{where}: drafts don't pay"
    guesses = f"{best} guess" + "es" * (best > 1)
    return f"{where}: {guesses}, {speed(share, best, ratio):.2f} times as fast"


def explore_speed() -> None:
    """Sliders over the share of right guesses and what a guess takes: how long should drafts be?"""

    def slider(value: float, least: float, most: float, name: str) -> ipywidgets.FloatSlider:
        return ipywidgets.FloatSlider(
            value=value, min=least, max=most, step=0.01, description=name, continuous_update=False
        )

    ipywidgets.interact(
        draw_speed, share=slider(0.9, 0.3, 1.0, "share"), ratio=slider(0.5, 0.02, 1.2, "guess/step")
    )


def draw_steps(steps: Sequence[Step], decode: Callable[[list[int]], str]) -> None:
    """A text in boxes, one a token: guessed right, written for a wrong guess, or behind a whole draft.

    Args:
        steps: from the first token on.
        decode: text of ids.
    """
    places, line, column = [], 0, 0
    for guesses, written in steps:
        for n, token in enumerate(written):
            wrong = decode([guesses[n]]) if n < len(guesses) and guesses[n] != token else ""
            word = _shown(decode([token]))
            if column + len(word) > _WIDTH:
                line, column = line + 1, 0
            kind = REPLACED if wrong else GUESSED if n < len(guesses) else OWN
            places.append((line, column, word, kind, _shown(wrong), n == 0))
            column += len(word) + 1
    figure, panel = plt.subplots(figsize=(9.5, 0.9 + 0.52 * (line + 1)), layout="constrained")
    for place in places:
        _draw_token(panel, *place)
    panel.set_xlim(-0.5, _WIDTH + 1)
    panel.set_ylim(line + 0.8, -0.6)
    panel.axis("off")
    for colour, label in (
        (GUESSED, "guessed"), (REPLACED, "for a wrong guess"), (OWN, "behind a draft all right"),
    ):  # fmt: skip
        panel.bar(0, 0, color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    panel.set_title(steps_finding(steps))
    plt.show()


def steps_finding(steps: Sequence[Step]) -> str:
    """What a text's steps come to: tokens, steps, and the share of guesses among the tokens."""
    tokens = sum(len(written) for _, written in steps)
    kept = sum(
        guess == token
        for guesses, written in steps
        for guess, token in zip(guesses, written, strict=False)
    )
    return f"{tokens} tokens in {len(steps)} steps: {kept / tokens:.0%} of them were guessed"


def _shown(text: str) -> str:
    return text.replace("\n", "↵").replace(" ", "·")


def _draw_token(
    panel: Axes, line: int, column: int, word: str, kind: str, wrong: str, first: bool
) -> None:
    panel.barh(line, len(word) + 0.7, 0.5, left=column - 0.35, color=kind)
    panel.text(column, line, word, va="center", family="monospace", size=9)
    if wrong:
        panel.text(column, line + 0.4, wrong, va="center", color="C3", family="monospace", size=6.5)
    if first:
        panel.plot([column - 0.5] * 2, [line - 0.36, line + 0.36], color="0.2", lw=1.2)
