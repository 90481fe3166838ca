r"""Supervised fine-tuning: whole conversations are read, and only what the assistant says is learnt.

The loss is that of pre-training. What differs is which tokens it asks for.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message, default_system, turn_tokens, with_system
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loader import resumed_place
from qwen2lite.train.loop import train
from qwen2lite.train.loss import IGNORED, NextToken
from qwen2lite.train.settings import TrainSettings
from qwen2lite.train.tokens import END_OF_TEXT

Learnt = tuple[list[int], list[int]]
"""The ids of a conversation, and after each the id that is to be learnt, or `IGNORED`."""


def answer_targets(
    tokenizer: Qwen2Tokenizer, messages: Sequence[Message], system: str | None = None
) -> Learnt:
    r"""Encodes a conversation, and says which of its tokens are learnt.

    Those are what the assistant says and the `<|im_end|>` after it: a model that never learns it
    never stops. Everything else is only read: other turns, "<|im_start|>assistant\n", which the
    program writes that asks, and the line end after a turn.

    Args:
        tokenizer: the model's.
        messages: each with "role" and "content"; at least one of the assistant.
        system: used where the conversation doesn't begin with a system message; None takes the
            default of the tokenizer's generation.

    Raises:
        ValueError: the assistant says nothing; see `encode_chat` for the rest.

    Source: that answers alone are learnt, arXiv 2309.16609, section 3.1.2; the report on Qwen2
    doesn't say.
    """
    start, end = turn_tokens(tokenizer)
    newline = tokenizer.encode("\n")
    ids: list[int] = []
    learnt: list[bool] = []
    for message in with_system(messages, default_system(tokenizer) if system is None else system):
        answers, content = message["role"] == "assistant", message["content"]
        # Its header is encoded apart, as it stands when the model is asked to go on: a line end
        # that the answer begins with doesn't merge with it.
        before = "assistant\n" if answers else f"{message['role']}\n{content}"
        header = [start, *tokenizer.encode(before, "none")]
        said = [*(tokenizer.encode(content, "none") if answers else []), end]
        for part, learn in ((header, False), (said, answers), (newline, False)):
            ids += part
            learnt += [learn] * len(part)
    if not any(learnt):
        raise ValueError(
            "the assistant says nothing in this conversation; there is nothing to learn"
        )
    targets = [token if asked else IGNORED for token, asked in zip(ids, learnt, strict=True)]
    return ids, [*targets[1:], IGNORED]


class Conversations:
    """Gives (ids_BT, targets_BT) without end: as many whole conversations in a row as fit.

    After each stands `<|endoftext|>`, by which `NextToken` keeps the conversations of a row from
    seeing each other, and the end of a row is filled with it. Nothing of that is learnt.

    Every conversation is read once an epoch, in an order that the seed decides. With W ranks, a step
    reads the next W·B rows, and rank r the r-th B of them.

    Args:
        learnt: what `answer_targets` gives; longer ones than a row are left out, with a warning.
        sequence_length: T, of a row.
        batch_size: B, rows a step on this rank.
        eos: the id of `<|endoftext|>`.
        seed: of the order; 0 or above.
        rank: this process among `world_size`, from 0.
        world_size: processes that share each step.

    Raises:
        ValueError: no conversation, or none that fits.
    """

    def __init__(
        self,
        learnt: Sequence[Learnt],
        sequence_length: int,
        batch_size: int,
        eos: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._learnt = [pair for pair in learnt if len(pair[0]) < sequence_length]
        if left_out := len(learnt) - len(self._learnt):
            longest = max(len(ids) for ids, _ in learnt)
            warnings.warn(
                f"{left_out} of {len(learnt)} conversations don't fit into {sequence_length} tokens "
                f"and are left out; the longest needs {longest + 1}",
                stacklevel=2,
            )
        if not self._learnt:
            raise ValueError("there is no conversation to read; give some, or a longer sequence")
        self.sequence_length, self.batch_size, self.seed = sequence_length, batch_size, seed
        self.eos, self.rank, self.world_size = eos, rank, world_size
        self.conversations_read = 0
        """By all ranks together, since the beginning of training."""
        self._epoch = -1

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self._row() for _ in range(self.batch_size * self.world_size)]
        mine = rows[self.rank * self.batch_size :][: self.batch_size]
        ids_BT, targets_BT = (torch.tensor(side) for side in zip(*mine, strict=True))
        return ids_BT, targets_BT

    def _row(self) -> Learnt:
        """The next conversations, one after another, until one doesn't fit."""
        row: Learnt = ([], [])
        while True:
            ids, targets = self._learnt[self._number()]
            if len(row[0]) + len(ids) >= self.sequence_length:
                break
            row[0].extend([*ids, self.eos])
            row[1].extend([*targets, IGNORED])
            self.conversations_read += 1
        empty = self.sequence_length - len(row[0])
        return row[0] + [self.eos] * empty, row[1] + [IGNORED] * empty

    def _number(self) -> int:
        """Which conversation is next in the endless line of epochs."""
        epoch, place = divmod(self.conversations_read, len(self._learnt))
        if epoch != self._epoch:
            chance = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, chance.permutation(len(self._learnt))
        return int(self._order[place])

    def state_dict(self) -> dict[str, int]:
        """The place in the line, and what the line depends on. The same on every rank."""
        return {
            "conversations_read": self.conversations_read,
            "tokens": sum(len(ids) for ids, _ in self._learnt),
            "sequence_length": self.sequence_length,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where another one stopped, with as many ranks and rows as you like.

        Raises:
            ValueError: the other one read other conversations, or with another length or seed.
        """
        self.conversations_read = resumed_place(state, self.state_dict(), "conversations_read")


def fine_tune(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    learnt: Sequence[Learnt],
    settings: TrainSettings,
    folder: str | Path,
    bar: bool = True,
    objective: Callable[[Any, int], nn.Module] = NextToken,
) -> Path:
    """Teaches a model to answer, and goes on where an earlier run in the same folder stopped.

    Args:
        model: in float32; trained in place.
        tokenizer: the model's, with the tokens of a chat.
        learnt: conversations, as `answer_targets` gives them.
        settings: how to train.
        folder: of this run; see `train`.
        bar: show progress.
        objective: made of the model and the id of `<|endoftext|>`.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError, OSError: see `Conversations` and `train`.
    """
    eos = tokenizer.special_tokens[END_OF_TEXT]
    sizes = (settings.sequence_length, settings.batch_size, eos, settings.seed)
    return train(
        model,
        Conversations(learnt, *sizes),
        settings,
        folder,
        tokenizer=tokenizer,
        objective=objective(model, eos),
        bar=bar,
    )
