"""A conversation in bubbles, as HTML: its still picture, and what the live chat is made of."""

import html
import re
from collections.abc import Sequence

from qwen2lite.learn.check import show
from qwen2lite.text.chat import Message, with_system

_FENCE = re.compile(r"^```.*\n?", re.MULTILINE)
_LABELS = {"system": "system prompt", "user": "you", "assistant": "model"}
# JupyterLab's own colours, so that bubbles suit its light and its dark theme; grey and blue elsewhere.
_GREY = "color-mix(in srgb, var(--jp-ui-font-color1, gray) 8%, transparent)"
_BLUE = "color-mix(in srgb, var(--jp-brand-color1, #2196f3) 18%, transparent)"
WIDTH = "700px"
QUIET = (
    "line-height:1.5;color:var(--jp-ui-font-color2, gray);font-size:var(--jp-ui-font-size1, 13px)"
)
_PLAIN = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:0;border:0;background:none;"
    "color:inherit;"
)
_CODE = (
    _PLAIN + "font-family:var(--jp-code-font-family, monospace);font-size:.93em;line-height:1.4;"
    f"margin:.4em 0;padding:.5em .7em;border-radius:6px;background:{_GREY}"
)


class Bubbles:
    """Messages as they are drawn: in bubbles in a notebook, as the turns of a chat elsewhere.

    Args:
        messages: each with "role" and "content".
    """

    def __init__(self, messages: Sequence[Message]):
        self.messages = list(messages)

    def __repr__(self) -> str:
        return "\n\n".join(f"{_LABELS[m['role']]}: {m['content']}" for m in self.messages)

    def _repr_html_(self) -> str:
        return f'<div style="max-width:{WIDTH}">{bubbles(self.messages)}</div>'


def draw_conversation(messages: Sequence[Message]) -> None:
    """Shows a conversation in bubbles: yours at the right, the model's at the left.

    What people and models write is shown as it is written, so no HTML in it has any effect. Only
    fences of three backticks are read: what they hold is set as code.

    Args:
        messages: each with "role" and "content".

    Raises:
        ValueError: no message, an unknown role, or no content.
    """
    with_system(messages, "")  # refuses what is no conversation
    show(Bubbles(messages))


def bubbles(messages: Sequence[Message]) -> str:
    """HTML of the messages, one below the other."""
    return "".join(bubble(message["role"], message["content"]) for message in messages)


def bubble(role: str, text: str) -> str:
    """HTML of one message.

    Args:
        role: "system", "user" or "assistant".
        text: what it says; newlines and spaces are kept.
    """
    side = "flex-end" if role == "user" else "flex-start"
    colour = _BLUE if role == "user" else _GREY
    column = f"display:flex;flex-direction:column;align-items:{side};margin-bottom:.6em"
    box = (
        f"max-width:85%;box-sizing:border-box;padding:.5em .8em;border-radius:12px;background:"
        f"{colour};color:var(--jp-content-font-color1, inherit);line-height:1.5;text-align:start;"
        "font-size:var(--jp-content-font-size1, 14px)"
    )
    return (
        f'<div class="qwen2lite-{role}" style="{column}">'
        f'<div style="{QUIET}"><b>{_LABELS[role]}</b></div>'
        f'<div class="qwen2lite-text" dir="auto" style="{box}">{_content(text)}</div></div>'
    )


def _content(text: str) -> str:
    """Every second piece between fences is code; the last fence may not be closed yet."""
    pieces = []
    for number, piece in enumerate(_FENCE.split(text)):
        is_code, shown = number % 2, html.escape(piece.strip("\n"))
        if is_code:
            pieces.append(f'<pre style="{_CODE}">{shown}</pre>')
        elif shown:
            # Line ends as <br>: pages that strip styles, as GitHub does, keep them.
            lines = shown.replace("\n", "<br>")
            pieces.append(f'<div style="{_PLAIN}">{lines}</div>')
    return "".join(pieces)
