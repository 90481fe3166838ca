"""What one sees of a chat: bubbles, a line of figures, a field to write in, buttons and sliders."""

import html
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets

from qwen2lite.infer.sample import Sampling
from qwen2lite.learn.widgets.bubbles import QUIET, WIDTH

_ENTER = 0.1
"""Seconds after which a text that was ended by Enter has come from the page."""
_RED = "color:var(--jp-error-color1, #d32f2f);white-space:pre-wrap;line-height:1.5"


class ChatView:
    """Widgets and no more: what they show comes from `show`, what is done to them goes to the others.

    Args:
        sampling: where the sliders begin.
        send: called with the text when a message is sent.
        stop: called when the answer is to end.
        new: called when the conversation is to begin anew.
    """

    def __init__(
        self,
        sampling: Sampling,
        send: Callable[[str], None],
        stop: Callable[[], None],
        new: Callable[[], None],
    ):
        self.past, self.answer, self.status, self.problem = (ipywidgets.HTML() for _ in range(4))
        # A column from the bottom up stays at its end while it grows, unless one scrolls up.
        scrolled = {"flex_flow": "column-reverse", "overflow": "auto", "max_height": "420px"}
        whole = {"flex": "0 0 auto", "overflow": "visible"}
        talk = ipywidgets.VBox([self.past, self.answer], layout=whole)
        # Read as a whole at its end, not letter by letter: the kernel has an answer to write.
        self.field = ipywidgets.Text(
            placeholder="Write a message and press Enter", continuous_update=False
        )
        self.field.layout = {"flex": "1 1 14em", "width": "auto"}
        self.field.on_msg(lambda _, content, __: self._heard(content, send))
        self.send = _button("Send", lambda: self._clicked(send), button_style="primary")
        self.stop = _button("Stop", stop, disabled=True)
        self.new = _button("New", new, tooltip="Begin a new conversation")
        self.sliders = _sliders(sampling)
        settings = ipywidgets.VBox(list(self.sliders.values()), layout={"display": "none"})
        more = ipywidgets.ToggleButton(
            description="Sampling", tooltip="How tokens are chosen", layout={"width": "auto"}
        )
        more.observe(lambda change: _reveal(settings, change["new"]), "value")
        row = [self.field, self.send, self.stop, self.new, more]
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.Box([talk], layout=scrolled),
                self.status,
                self.problem,
                ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}),
                settings,
            ],
            layout={"max_width": WIDTH},
        )
        self.widget.add_class("qwen2lite-chat")

    def settings(self) -> dict[str, Any]:
        """What the sliders say, by the names of `Sampling`."""
        return {name: slider.value for name, slider in self.sliders.items()}

    def show(self, past: str, answer: str, status: str, problem: str, is_answering: bool) -> None:
        """Shows the state of a conversation.

        Args:
            past: HTML of what was said before the last answer.
            answer: HTML of the last answer, perhaps unfinished.
            status: a quiet line of text.
            problem: text of what went wrong, if anything.
            is_answering: whether there is something to stop.
        """
        self.past.value, self.answer.value = past, answer
        self.status.value = f'<span style="{QUIET}">{html.escape(status)}</span>'
        self.problem.value = f'<div style="{_RED}">{html.escape(problem)}</div>'
        _reveal(self.problem, bool(problem))
        self.send.disabled, self.stop.disabled = is_answering, not is_answering

    def take(self, text: str) -> None:
        """Empties the field of a text that has been sent. What else one is writing stays."""
        if self.field.value == text:
            self.field.value = ""

    def give_back(self, text: str) -> None:
        """Puts a text into the field again, unless something else is there by now."""
        self.field.value = self.field.value or text

    def _clicked(self, send: Callable[[str], None]) -> None:
        send(self.field.value)
        self.field.focus()

    def _heard(self, content: dict[str, Any], send: Callable[[str], None]) -> None:
        if content.get("event") == "submit":
            # The page tells of Enter first, and of the text that it ended right after.
            timer = threading.Timer(_ENTER, lambda: send(self.field.value))
            timer.daemon = True
            timer.start()


def _button(name: str, act: Callable[[], None], **look: Any) -> ipywidgets.Button:
    button = ipywidgets.Button(description=name, layout={"width": "auto"}, **look)
    button.on_click(lambda _: act())
    return button


def _reveal(widget: ipywidgets.Widget, shown: bool) -> None:
    widget.layout.display = None if shown else "none"


def _sliders(sampling: Sampling) -> dict[str, Any]:
    """A slider a setting, wide enough for the value that it begins with."""
    limits = {
        "temperature": (0.0, 2.0, 0.1),
        "top_k": (0, 100, 1),
        "top_p": (0.05, 1.0, 0.05),
        "repetition_penalty": (1.0, 2.0, 0.05),
    }
    sliders = {}
    for name, (low, high, step) in limits.items():
        value = getattr(sampling, name)
        kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
        sliders[name] = kind(
            value=value,
            min=min(low, value),
            max=max(high, value),
            step=step,
            description=name.replace("_", " "),
            style={"description_width": "10em"},
            layout={"width": "30em", "max_width": "100%"},
        )
    return sliders
