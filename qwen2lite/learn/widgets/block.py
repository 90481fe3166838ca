"""Explorer of the stream: what the model would say if it stopped after a layer."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch


def likeliest(
    logits_LTV: torch.Tensor, word_of: Callable[[int], str], count: int = 6
) -> tuple[list[list[list[str]]], torch.Tensor]:
    """The likeliest tokens in each place, as words, and their probabilities, shape [L, T, count].

    Args:
        logits_LTV: of one text, after each layer.
        word_of: turns a token id into its text.
        count: how many tokens to keep of the whole vocabulary.
    """
    top = logits_LTV.float().softmax(-1).topk(count)
    words = [[[word_of(i) for i in place] for place in layer] for layer in top.indices.tolist()]
    return words, top.values


def draw_lens(
    words: Sequence[Sequence[Sequence[str]]],
    probabilities: torch.Tensor,
    tokens: Sequence[str],
    layer: int,
    position: int,
) -> None:
    """Left the likeliest token after every layer, the last layer on top; right one place in detail.

    Args:
        words: see `likeliest`; the first row is before all layers.
        probabilities: see `likeliest`.
        tokens: the text's tokens.
        layer: layers passed, of the place in detail.
        position: of the token, of the place in detail.
    """
    figure, (grid, bars) = plt.subplots(
        1, 2, figsize=(10, 6.2), layout="constrained", width_ratios=(5, 2)
    )
    picture = grid.imshow(
        probabilities[..., 0].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower"
    )
    for row, places in enumerate(words):
        for column, best in enumerate(places):
            dark = float(probabilities[row, column, 0]) > 0.6
            _write(grid, column, row, best[0], "white" if dark else "black")
    frame = plt.Rectangle((position - 0.5, layer - 0.5), 1, 1, fill=False, color="C1", lw=2)
    grid.add_patch(frame)
    grid.set_xticks(range(len(tokens)), [readable(token) for token in tokens], fontsize=9)
    grid.set_yticks(range(len(words)), range(len(words)), fontsize=7)
    grid.set(xlabel="token that is read", ylabel="layers passed", title=finding(words))
    figure.colorbar(picture, ax=grid, label="probability", location="left", shrink=0.5)
    _draw_bars(bars, words[layer][position], probabilities[layer, position])
    bars.set_title(f"after {layer} layers, at “{readable(tokens[position])}”", fontsize=10)
    plt.show()


def finding(words: Sequence[Sequence[Sequence[str]]]) -> str:
    """From which layer on the last token's likeliest answer is the final one, in a sentence."""
    answers = [layer[-1][0] for layer in words]
    settled = next(n for n in range(len(answers)) if set(answers[n:]) == {answers[-1]})
    return f"“{readable(answers[-1])}” is settled after {settled} of {len(answers) - 1} layers"


def readable(token: str, longest: int = 9) -> str:
    """A token as a figure can show it: short, spaces stripped, signs that its font lacks as □."""
    shown = "".join(c if _can_be_shown(c) else "□" for c in token.strip())
    shown = (shown or "␣") if len(shown) <= longest else shown[: longest - 1] + "…"
    return shown.replace("$", r"\$")


def _can_be_shown(character: str) -> bool:
    # Latin, Greek and Cyrillic, dashes and quotes: what the font that comes with matplotlib has.
    code = ord(character)
    return character.isprintable() and (code < 0x530 or 0x2010 <= code <= 0x2026)


def _write(panel: Any, column: int, row: int, word: str, colour: str) -> None:
    panel.text(column, row, readable(word), ha="center", va="center", fontsize=7, color=colour)


def _draw_bars(panel: Any, words: Sequence[str], probabilities: torch.Tensor) -> None:
    places = range(len(words))
    panel.barh(places, probabilities.tolist(), color="C0")
    panel.set_yticks(places, [readable(word) for word in words], fontsize=9)
    panel.invert_yaxis()
    panel.set(xlim=(0, 1), xlabel="probability")


def explore_lens(
    words: Sequence[Sequence[Sequence[str]]], probabilities: torch.Tensor, tokens: Sequence[str]
) -> None:
    """Sliders over layers and positions: what the model would say if it stopped there.

    Args:
        words: see `likeliest`.
        probabilities: see `likeliest`.
        tokens: the text's tokens.
    """

    def draw(layer: int, position: int) -> None:
        draw_lens(words, probabilities, tokens, layer, position)

    def slider(name: str, last: int) -> ipywidgets.IntSlider:
        return ipywidgets.IntSlider(value=last, max=last, description=name, continuous_update=False)

    ipywidgets.interact(
        draw, layer=slider("layers", len(words) - 1), position=slider("position", len(tokens) - 1)
    )
