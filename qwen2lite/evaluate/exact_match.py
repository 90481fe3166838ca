"""Does a model continue a text exactly as it should? For facts, keys, and short answers."""

from collections.abc import Iterator, Sequence

import torch

from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer

_TOKENS = 8192
"""Tokens that are read at once."""


@torch.inference_mode()
def exact_match(
    model: Qwen2, tokenizer: Qwen2Tokenizer, questions: Sequence[tuple[str, str]]
) -> list[bool]:
    """Whether the likeliest continuation of each prompt begins with its answer.

    No token need be generated: the model reads prompt and answer at once, and the answer is what it
    would have written if each of its tokens is the likeliest one after those before it.

    Args:
        model: in evaluation mode.
        tokenizer: of that model.
        questions: (prompt, answer); an answer that begins a word begins with a space.

    Raises:
        ValueError: an answer without a token, an empty prompt, or another model's tokenizer.
    """
    rows = [_encoded(tokenizer, prompt, answer) for prompt, answer in questions]
    right = [False] * len(rows)
    for batch in _batches(rows):
        longest = max(len(rows[number][0]) for number in batch)
        ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
        for place, number in enumerate(batch):
            # Filled up on the right, where causal attention never looks from the left.
            ids_BT[place, : len(rows[number][0])] = torch.tensor(rows[number][0])
        model.check_ids(ids_BT)
        x_BTD = model.model(ids_BT.to(model.device))
        for place, number in enumerate(batch):
            ids, start = rows[number]
            # Scores of every position would be 40 GB for 128K tokens of Qwen2's vocabulary.
            scores = model.score(x_BTD[place : place + 1, start - 1 : len(ids) - 1])
            right[number] = scores[0].argmax(-1).tolist() == ids[start:]
    return right


def _encoded(tokenizer: Qwen2Tokenizer, prompt: str, answer: str) -> tuple[list[int], int]:
    """All ids, and where the answer's begin."""
    before = tokenizer.encode(prompt)
    after = tokenizer.encode(answer)
    if not before or not after:
        raise ValueError(f"prompt and answer need a token each; got {prompt!r} and {answer!r}")
    return before + after, len(before)


def _batches(rows: Sequence[tuple[list[int], int]]) -> Iterator[list[int]]:
    """Numbers of rows of about the same length, a few thousand tokens together."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number][0])):
        if batch and (len(batch) + 1) * len(rows[number][0]) > _TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
