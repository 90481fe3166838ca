"""Explorers of BPE: a text's tokens merge by merge, and its tokens in colours in any language."""

import html
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from qwen2lite.learn.check import show
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import vocabulary_of

Merges = Sequence[tuple[bytes, bytes]]

_COLOURS = ("#cfe2ff", "#ffe3b3", "#d4edda", "#f8d7f0", "#e2e3e5")


def visible(token: bytes) -> str:
    """A token as one can see it: · is a space, ⏎ a line end, and half a character its bytes."""
    try:
        return token.decode("utf-8").replace(" ", "·").replace("\n", "⏎")
    except UnicodeDecodeError:
        return token.hex(" ").upper()


def draw_merges(text: str, merges: Merges, counts: Sequence[int]) -> None:
    """A text's tokens after some numbers of merges, a line each, a box a token.

    Args:
        text: one line, of letters that the figure's font has.
        merges: as `train_bpe` returns them.
        counts: how many of them each line may use.
    """
    _, panel = plt.subplots(figsize=(9, 0.8 + 0.42 * len(counts)), layout="constrained")
    lines = [_tokens(text, merges, count) for count in counts]
    for row, tokens in enumerate(lines):
        start = 0
        for number, token in enumerate(map(visible, tokens)):
            colour = _COLOURS[number % len(_COLOURS)]
            panel.add_patch(Rectangle((start, row - 0.4), len(token), 0.8, fc=colour, ec="white"))
            panel.text(
                start + len(token) / 2, row, token, ha="center", va="center", family="monospace"
            )
            start += len(token)
    panel.set_xlim(0, max(sum(len(visible(token)) for token in tokens) for tokens in lines))
    panel.set_ylim(len(counts) - 0.5, -0.5)
    panel.set_xticks([])
    names = [
        f"{count:,} {'merge' if count == 1 else 'merges'}: {len(t)} tokens"
        for count, t in zip(counts, lines, strict=True)
    ]
    panel.set_yticks(range(len(counts)), names)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_title(_title(lines, merges, counts))
    plt.show()


def _tokens(text: str, merges: Merges, count: int) -> list[bytes]:
    tokenizer = Qwen2Tokenizer(vocabulary_of(merges[:count]))
    return [
        tokenizer.token_bytes(token) for token in tokenizer.encode(text, allowed_special="none")
    ]


def _title(lines: list[list[bytes]], merges: Merges, counts: Sequence[int]) -> str:
    if len(counts) > 1:
        return f"Merge by merge, {len(lines[0])} tokens become {len(lines[-1])}"
    if not counts[0]:
        return "No merges: every byte is a token"
    left, right = merges[counts[0] - 1]
    return f"Merge {counts[0]:,} is {visible(left)} + {visible(right)}"


def explore_merges(text: str, merges: Merges) -> None:
    """A slider over the number of merges: the picture of `draw_merges`, a step at a time."""

    def draw(count: int) -> None:
        draw_merges(text, merges, [count])

    slider = ipywidgets.IntSlider(
        value=1, max=len(merges), description="merges", continuous_update=False
    )
    ipywidgets.interact(draw, count=slider)


class ColouredTokens:
    """Tokens side by side, coloured in a notebook, with bars between them elsewhere.

    Args:
        tokens: of a text.
    """

    def __init__(self, tokens: Sequence[bytes]):
        self.tokens = list(map(visible, tokens))

    def __repr__(self) -> str:
        return f"{len(self.tokens)} tokens: {'│'.join(self.tokens)}"

    def _repr_html_(self) -> str:
        boxes = []
        for number, token in enumerate(self.tokens):
            colour = _COLOURS[number % len(_COLOURS)]
            style = f"color:black;padding:1px 2px;margin:1px;border-radius:3px;background:{colour}"
            boxes.append(f'<code style="{style}"><bdi>{html.escape(token)}</bdi></code>')
        return f'<div dir="auto">{"".join(boxes)} {len(boxes)} tokens</div>'


def show_tokens(tokenizer: Qwen2Tokenizer, text: str) -> None:
    """Shows the tokens of a text in colours. Half a character shows as its bytes."""
    ids = tokenizer.encode(text, allowed_special="none")
    show(ColouredTokens([tokenizer.token_bytes(token) for token in ids]))


def explore_tokens(
    tokenizers: Mapping[str, Qwen2Tokenizer], sentences: Mapping[str, Sequence[str]]
) -> None:
    """Menus of vocabularies, languages and sentences: what `show_tokens` shows for each.

    Args:
        tokenizers: by the names that the menu shows.
        sentences: for each language equally many, the same in all of them.
    """

    def draw(vocabulary: str, language: str, sentence: int) -> None:
        show_tokens(tokenizers[vocabulary], sentences[language][sentence - 1])

    count = len(next(iter(sentences.values())))
    ipywidgets.interact(
        draw,
        vocabulary=ipywidgets.Dropdown(options=list(tokenizers)),
        language=ipywidgets.Dropdown(options=list(sentences)),
        sentence=ipywidgets.IntSlider(value=1, min=1, max=count, continuous_update=False),
    )
