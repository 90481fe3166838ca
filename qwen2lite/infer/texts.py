"""Prompts as texts that a batch goes on with, and what keeps a prompt from becoming one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index

from qwen2lite.infer.sample import Sampler
from qwen2lite.model.qwen2 import Qwen2


@dataclass
class Text:
    """A prompt and what has been written after it."""

    number: int
    ids: list[int]
    prompt_length: int
    limit: int
    """Tokens at which it ends, those of the prompt among them."""
    sampler: Sampler | None

    @property
    def is_full(self) -> bool:
        return len(self.ids) >= self.limit


def texts_of(
    model: Qwen2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    new_sampler: Callable[[int], Sampler] | None,
) -> list[Text]:
    """The prompts as texts to be continued. Raises ValueError for what can't be."""
    config = model.config
    if config.dual_chunk_attention_config:
        raise ValueError(
            "a model with dual chunk attention counts its chunks from the beginning of a text, and "
            "padding would move them; use generate_ids for one prompt after the other"
        )
    if not len(prompts):
        raise ValueError("there is no prompt: give a list with at least one")
    limits = max_new_tokens
    if isinstance(limits, int):
        limits = [limits] * len(prompts)
    if len(limits) != len(prompts) or min(limits) < 0:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, and there are {len(prompts)} prompts; "
            "give one number of 0 or more for all, or one for each"
        )
    texts = []
    for number, (prompt, more) in enumerate(zip(prompts, limits, strict=True)):
        ids, room = _whole(prompt), config.context_length
        _check_prompt(number, ids, room, config.vocab_size)
        limit = min(len(ids) + more, room)
        sampler = new_sampler(number) if new_sampler else None
        texts.append(Text(number, ids, len(ids), limit, sampler))
    return texts


def _whole(prompt: Sequence[int]) -> list[int]:
    """Ids as Python's own numbers, also those of an array or a tensor."""
    return [index(token) if hasattr(token, "__index__") else token for token in prompt]


def _check_prompt(number: int, ids: list[int], room: int, vocab_size: int) -> None:
    if not ids:
        raise ValueError(f"prompt {number} is empty: give at least one token to continue")
    if len(ids) >= room:
        raise ValueError(
            f"prompt {number} has {len(ids)} tokens and the model's context holds {room}; "
            "shorten it so that there is room for an answer"
        )
    wrong = [token for token in ids if not isinstance(token, int) or not 0 <= token < vocab_size]
    if wrong:
        raise ValueError(
            f"prompt {number} has the token id {wrong[0]!r}, and ids run from 0 to "
            f"{vocab_size - 1}; encode a text first, with the tokenizer of this model"
        )
