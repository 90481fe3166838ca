"""A chat in the notebook: you write, and see the model's answer grow while it is made."""

import threading
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import qwen2lite
from qwen2lite.infer.clock import Clock
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.remember import RememberingQwen2
from qwen2lite.infer.sample import CHAT_SAMPLING, Sampler, Sampling
from qwen2lite.learn.keep import receipt
from qwen2lite.learn.widgets.bubbles import bubble, bubbles
from qwen2lite.learn.widgets.chat_view import ChatView
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message, encode_chat
from qwen2lite.text.tokenizer import Qwen2Tokenizer

_PAUSE = 0.1
"""Seconds between two updates of the page: a fast model would flood the channel to it."""
_BUSY = "One answer at a time: wait for this one, or stop it and send again."
_NO_TEXT = "(no text: the model ended its turn at once)"


def chat(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    system: str | None = None,
    sampling: Sampling = CHAT_SAMPLING,
    max_new_tokens: int = 512,
) -> "Conversation":
    """A conversation with a model, which shows itself as the last line of a cell.

    Args:
        model: a loaded model, of your own parts if you like. `pack` makes the reference's faster.
        tokenizer: the model's.
        system: system prompt; None takes the default of the tokenizer's generation.
        sampling: how to choose tokens; the chat's sliders begin there.
        max_new_tokens: longest answer, in tokens.
    """
    return Conversation(model, tokenizer, system, sampling, max_new_tokens)


@dataclass(eq=False)
class _Turn:
    """An answer that is being written, or was; the question is the last of the messages."""

    messages: list[Message]
    model: RememberingQwen2
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)
    asked: int = 0
    """Tokens of the prompt: all that was said."""
    written: int = 0
    text: str = ""
    ended: str = ""
    """Why the model did not come to an end by itself."""
    is_over: bool = False


class Conversation:
    """A conversation that is had in its widget or from code, and is the same in both.

    Args:
        model: see `chat`, as all of them.
        tokenizer: the model's.
        system: None takes the default.
        sampling: where the sliders begin.
        max_new_tokens: of an answer.
    """

    def __init__(
        self,
        model: Qwen2,
        tokenizer: Qwen2Tokenizer,
        system: str | None,
        sampling: Sampling,
        max_new_tokens: int,
    ):
        self.model, self.tokenizer, self.system = model, tokenizer, system
        self._remembering = RememberingQwen2(model)
        self.max_new_tokens, self._sampling = max_new_tokens, sampling
        self.messages: list[Message] = []
        """What was said, as `encode_chat` takes it."""
        self.earlier: list[list[Message]] = []
        """The messages of the conversations before this one."""
        self.error: Exception | None = None
        """What the last answer failed of; `raise` it to see the whole traceback."""
        self._problem = ""
        self._turn: _Turn | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.view = ChatView(sampling, self.send, self.stop, self.new)
        self._show()

    def _repr_mimebundle_(self, **how: Any) -> dict[str, Any]:
        bundle = self.view.widget._repr_mimebundle_(**how)
        return {**bundle, "text/plain": "A chat: run this cell to talk with the model."}

    @property
    def sampling(self) -> Sampling:
        """How the tokens of the next answer are chosen, as the sliders say."""
        return replace(self._sampling, **self.view.settings())

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being written."""
        return self._turn is not None and not self._turn.is_over

    def send(self, text: str) -> None:
        """Says something to the model, which answers while you go on; `wait` waits for the end.

        A blank text does nothing. While an answer is written, another message is refused.

        Args:
            text: what you say.
        """
        with self._lock:
            if not text.strip():
                return
            if self.is_answering:
                self._problem = _BUSY
                self._show()
                return
            self.messages.append({"role": "user", "content": text})
            self._turn = _Turn(self.messages, self._remembering)
            self.error, self._problem = None, ""
            self.view.take(text)
            self._show()
            # In a thread: a kernel hears the page only between two cells or callbacks. In one of
            # those, an answer could not be stopped: the click would wait for its end.
            work = (self._turn, self.sampling.sampler())
            self._thread = threading.Thread(target=self._answer, args=work, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the answer that is being written; what there is of it stays."""
        with self._lock:
            if self._turn is not None:
                self._turn.stop.set()

    def new(self) -> None:
        """Begins a new conversation. This one moves to `earlier`, and its answer is stopped."""
        with self._lock:
            if self._turn is not None:
                self._turn.stop.set()
            if self.messages:
                self.earlier.append(self.messages)
            self.messages, self._turn, self.error, self._problem = [], None, None, ""
            # The answer that is being stopped may still be at work on the other.
            self._remembering = RememberingQwen2(self.model)
            self._show()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end of the answer that is being written, if one is.

        Args:
            seconds: how long at most; None waits on.

        Returns:
            Whether the end has come.
        """
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.is_answering

    def _answer(self, turn: _Turn, sampler: Sampler) -> None:
        error = None
        try:
            self._write(turn, sampler)
        except Exception as raised:  # of any kind: a learner's own parts are at work here
            error = raised
        with self._lock:
            turn.is_over = True
            nothing_came = not turn.text and bool(error or turn.ended)
            if not nothing_came:
                turn.messages.append({"role": "assistant", "content": turn.text})
            if turn is not self._turn:
                return  # another conversation has begun
            if nothing_came:  # then the question is given back, to be mended and sent again
                self.view.give_back(turn.messages.pop()["content"])
            self.error, self._problem = error, _explained(error) if error else ""
            self._show()

    def _write(self, turn: _Turn, sampler: Sampler) -> None:
        prompt = encode_chat(self.tokenizer, turn.messages, self.system)
        turn.asked, shown = len(prompt), turn.clock.start
        stream, stops = self.tokenizer.stream(), self.tokenizer.eos_ids
        for token in generate_ids(turn.model, prompt, self.max_new_tokens, sampler, stops):
            if turn.stop.is_set():
                turn.ended = "stopped"
                return
            turn.clock.tick()
            turn.written += 1
            turn.text += stream.push(token)
            if turn.clock.last - shown > _PAUSE:
                shown = turn.clock.last
                with self._lock:
                    if turn is self._turn:
                        self._show()
        turn.text += stream.finish()
        if turn.written == self.max_new_tokens:
            turn.ended = f"cut at max_new_tokens={self.max_new_tokens}"
        elif turn.asked + turn.written == self.model.config.context_length:
            turn.ended = "the context is full"

    def _show(self) -> None:
        """Brings the page up to date. Whoever calls it holds the lock."""
        past, answer = self.messages, ""
        if self._turn is not None and self.is_answering:
            answer = bubble("assistant", self._turn.text + "▍")
        elif past:
            *past, last = past
            answer = bubble(last["role"], last["content"] or _NO_TEXT)
        status = self._status(self._turn) if self._turn is not None else ""
        self.view.show(bubbles(past), answer, status, self._problem, self.is_answering)

    def _status(self, turn: _Turn) -> str:
        if not turn.written:
            return turn.ended if turn.is_over else "reading …"
        rates = turn.clock.rates(turn.written)
        said = [f"{turn.model.read_of(turn.asked)}, {turn.written} written", rates, turn.ended]
        parts = receipt(self.model.parts, self.model.config)
        if parts.yours:
            said.append(str(parts).splitlines()[0])
        return " · ".join(filter(None, said))


def _explained(error: Exception) -> str:
    """What the package itself has to say is a sentence; of other errors also where they arose."""
    frames = traceback.extract_tb(error.__traceback__)
    # PyTorch's own lines tell a learner nothing. This file's is always there.
    last = [f for f in frames if not _lies_in(f.filename, torch)][-1]
    if isinstance(error, ValueError) and _lies_in(last.filename, qwen2lite):
        return str(error)
    place = f"in {last.name}, line {last.lineno}: {last.line}"
    return f"{type(error).__name__}: {error}\n{place}\nThe chat's .error has the whole traceback."


def _lies_in(filename: str, package: ModuleType) -> bool:
    return Path(filename).is_relative_to(Path(package.__file__ or "").parent)
