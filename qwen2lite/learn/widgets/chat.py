"""Explorer of chats: the tokens of a conversation, coloured by whose turn they are in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.font_manager import findfont, get_font

from qwen2lite.text.chat import QWEN2_5_SYSTEM, QWEN2_SYSTEM, Message, encode_chat, render_chat
from qwen2lite.text.tokenizer import Qwen2Tokenizer

COLOURS = {"system": "#c3b3e0", "user": "#cfe3f7", "assistant": "#d3ecd0", "": "#eeeeee"}
CONTROL = "#f3b562"
_WIDTH = 96  # characters a line
_SIGNS = str.maketrans({"\n": "⏎", "\t": "→"})


@dataclass(frozen=True)
class ShownToken:
    """One token of a conversation, as it is drawn."""

    text: str
    role: str
    """Of the turn that it is in; "" where no turn has been opened."""
    is_control: bool


def shown_tokens(tokenizer: Qwen2Tokenizer, ids: Sequence[int]) -> list[ShownToken]:
    """Reads a conversation back from its ids, as the model has to."""
    names = {number: name for name, number in tokenizer.special_tokens.items()}
    role, tokens = "", []
    for place, token in enumerate(ids):
        name = names.get(token, "")
        if name == "<|im_start|>":
            role = tokenizer.decode(ids[place + 1 : place + 12]).split("\n")[0]
        tokens.append(ShownToken(name or tokenizer.decode([token]), role, bool(name)))
    return tokens


def lines_of(tokens: Sequence[ShownToken]) -> Iterator[list[ShownToken]]:
    """Breaks tokens into lines: after a line end, and where a line is full."""
    line: list[ShownToken] = []
    for token in tokens:
        if line and sum(len(t.text) + 1 for t in line) + len(token.text) > _WIDTH:
            yield line
            line = []
        line.append(token)
        if token.text.endswith("\n"):
            yield line
            line = []
    if line:
        yield line


def draw_turns(tokenizer: Qwen2Tokenizer, ids: Sequence[int]) -> None:
    """Every token in a box: orange are control tokens, the other colours are roles.

    Args:
        tokenizer: the model's.
        ids: of a conversation, from `encode_chat` or with a mistake in it.
    """
    tokens = shown_tokens(tokenizer, ids)
    lines = list(lines_of(tokens))
    panel = page(len(lines))
    for row, line in enumerate(lines):
        roles = [CONTROL if t.is_control else COLOURS.get(t.role, COLOURS[""]) for t in line]
        draw_line(panel, line, -row, roles)
    turns = sum(token.is_control and token.text == "<|im_start|>" for token in tokens)
    panel.text(0, 1.25, f"{len(ids)} tokens; the model sees {turns} turns", fontsize=11)
    legend = {**{role: colour for role, colour in COLOURS.items() if role}, "control": CONTROL}
    for place, (name, colour) in enumerate(legend.items()):
        box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.2"}
        panel.text(56 + 11 * place, 1.25, name, fontsize=9, bbox=box)
    plt.show()


def page(lines: int) -> Any:
    """A figure without axes for so many lines of tokens, and one above them for a title."""
    figure = plt.figure(figsize=(9, 0.3 * lines + 0.45))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set(xlim=(-1, _WIDTH + 4), ylim=(-lines + 0.4, 1.9))
    panel.axis("off")
    return panel


def draw_line(panel: Any, line: Sequence[ShownToken], y: float, colours: Sequence[str]) -> None:
    """Draws tokens side by side, each in a box of its colour, with y as the middle of the line."""
    x = 0.0
    for token, colour in zip(line, colours, strict=True):
        text = drawable(token.text.translate(_SIGNS))
        panel.add_patch(plt.Rectangle((x, y - 0.42), len(text) + 0.7, 0.84, color=colour))
        # Leading spaces are drawn as what they are: a token owns its space.
        spelled = text.replace(" ", "\u00a0")
        style = {"family": "monospace", "fontsize": 9.5, "va": "center_baseline"}
        panel.text(x + 0.35, y, spelled, parse_math=False, **style)
        x += len(text) + 1


def drawable(text: str) -> str:
    """A text as the figure's font can draw it: □ for what it lacks, Chinese for one."""
    font = get_font(findfont("monospace"))
    return "".join(sign if font.get_char_index(ord(sign)) else "□" for sign in text)


def explore_turns(tokenizer: Qwen2Tokenizer) -> None:
    """Type a message, choose a system prompt and how it is encoded: the turns that come of it.

    Args:
        tokenizer: the model's.
    """
    systems = {"Qwen2's": QWEN2_SYSTEM, "Qwen2.5's": QWEN2_5_SYSTEM, "an empty one": ""}

    def draw(says: str, system: str, opened: bool, believed: bool) -> None:
        messages: list[Message] = [{"role": "user", "content": says}]
        if believed:
            ids = tokenizer.encode(render_chat(messages, systems[system], opened))
        else:
            ids = encode_chat(tokenizer, messages, systems[system], opened)
        draw_turns(tokenizer, ids)

    ipywidgets.interact(
        draw,
        says=ipywidgets.Text(value="Hello", description="user", continuous_update=False),
        system=ipywidgets.Dropdown(options=list(systems), description="system"),
        opened=ipywidgets.Checkbox(value=True, description="generation prompt"),
        believed=ipywidgets.Checkbox(value=False, description="believe control tokens"),
    )
