"""Wrong answers to the tasks of the exercise 34_kv_cache."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.qwen2 import Qwen2


def reads_the_last_one_too(prompt: int, new: int, cached: bool) -> int:
    """The last new token is counted as well. Nobody reads it: once it is chosen, the text is done."""
    if cached:
        return prompt + new
    return sum(prompt + step for step in range(1, new + 1))


def reads_the_prompt_every_time(prompt: int, new: int, cached: bool) -> int:
    """With a cache the prompt is read once, and every later step reads a single token."""
    return new * prompt if cached else sum(prompt + step for step in range(new))


def forgets_the_growth(prompt: int, new: int, cached: bool) -> int:
    """Without a cache the new tokens are read again as well: the text grows by one at each step."""
    return prompt + new - 1 if cached else new * prompt


def reads_a_token_for_each(prompt: int, new: int, cached: bool) -> int:
    """The first new token comes out of the prompt: only the others cost a step of their own."""
    return prompt + new if cached else sum(prompt + step for step in range(new))


def looks_at_the_first_position(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """The token is taken from the scores of the first position. What comes next is told at the last
    one: [0, -1]."""
    cache, found = model.new_cache(len(prompt_ids) + count), []
    unread = torch.tensor([list(prompt_ids)])
    for _ in range(count):
        unread = model(unread, cache)[:, :1].argmax(-1)
        found.append(int(unread))
    return found


def reads_all_again(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """Every step hands over the whole text, with a cache that has most of it already: each token
    comes twice, three times, … Hand over what the cache hasn't seen."""
    ids = list(prompt_ids)
    cache = model.new_cache(min((count + 1) * (len(ids) + count), model.config.context_length))
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]), cache)[0, -1].argmax()))
    return ids[len(prompt_ids) :]


def without_a_cache(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """The tokens are right, but the whole text is read again at each step: there is no cache, or the
    model isn't given it."""
    ids = list(prompt_ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt_ids) :]


def a_new_cache_each_step(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """Each step gets an empty cache, so the last token stands alone, at position 0. Make one, before
    the loop."""
    found, unread = [], torch.tensor([list(prompt_ids)])
    for _ in range(count):
        cache = model.new_cache(len(prompt_ids) + count)
        unread = model(unread, cache)[:, -1:].argmax(-1)
        found.append(int(unread))
    return found


def last_of_the_prompt_twice(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """After the prompt its last token is read again, one place too far to the right. The scores after
    the prompt give the first new token already."""
    cache, found = model.new_cache(len(prompt_ids) + count), []
    model(torch.tensor([list(prompt_ids)]), cache)
    unread = torch.tensor([list(prompt_ids[-1:])])
    for _ in range(count):
        unread = model(unread, cache)[:, -1:].argmax(-1)
        found.append(int(unread))
    return found


def prompt_and_all(model: Qwen2, prompt_ids: Sequence[int], count: int) -> list[int]:
    """The prompt is returned as well; wanted are the new tokens alone."""
    ids, cache = list(prompt_ids), model.new_cache(len(prompt_ids) + count)
    unread = torch.tensor([ids])
    for _ in range(count):
        unread = model(unread, cache)[:, -1:].argmax(-1)
        ids.append(int(unread))
    return ids


def one_cache_for_all(model: Qwen2, prompts: Sequence[Sequence[int]]) -> list[int]:
    """One cache serves all prompts and is never set back: to the model the second one is the end of
    the first (litgpt #1596)."""
    cache = model.new_cache(sum(len(prompt) for prompt in prompts))
    found = []
    for prompt in prompts:
        logits_BTV = model(torch.tensor([list(prompt)]), cache, last_only=True)
        found.append(int(logits_BTV[0, -1].argmax()))
    return found


def wiped_but_not_set_back(model: Qwen2, prompts: Sequence[Sequence[int]]) -> list[int]:
    """The memory is filled with zeros, and length stays where it was. The zeros are keys like others,
    and the text begins at a later position: it is length that has to be 0."""
    cache = model.new_cache(sum(len(prompt) for prompt in prompts))
    found = []
    for prompt in prompts:
        for layer in range(model.config.num_hidden_layers):
            # Nothing new, so update gives views of all that is there.
            nothing = torch.empty(1, model.config.num_key_value_heads, 0, model.config.head_dim)
            for stored in cache.update(layer, nothing, nothing):
                stored.zero_()
        logits_BTV = model(torch.tensor([list(prompt)]), cache, last_only=True)
        found.append(int(logits_BTV[0, -1].argmax()))
    return found


def reads_the_last_token_only(model: Qwen2, prompts: Sequence[Sequence[int]]) -> list[int]:
    """Of each prompt only the last token is read; the cache is empty and knows none of the others."""
    return [int(model(torch.tensor([[prompt[-1]]]))[0, -1].argmax()) for prompt in prompts]


def of_the_last_position(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """Only the last position is compared; every one of them counts."""
    cache = model.new_cache(ids_BT.shape[1], len(ids_BT))
    for piece in ids_BT.split(pieces, dim=1):
        logits = model(piece, cache)
    return (logits[:, -1] - model(ids_BT)[:, -1]).abs().max()


def a_cache_for_each_piece(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """Each piece gets a new cache, so it doesn't know the pieces before it."""
    parts = [
        model(piece, model.new_cache(ids_BT.shape[1], len(ids_BT)))
        for piece in ids_BT.split(pieces, dim=1)
    ]
    return (torch.cat(parts, dim=1) - model(ids_BT)).abs().max()


def with_its_sign(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """The differences keep their sign, so one that is far below zero counts as small: take the
    absolute value first."""
    return _differences(model, ids_BT, pieces).max()


def on_average(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """This is the mean difference; wanted is the largest."""
    return _differences(model, ids_BT, pieces).abs().mean()


def of_the_first_text(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """Only the first text is compared; the largest difference may be in any of them."""
    return _differences(model, ids_BT, pieces)[0].abs().max()


def beside_itself(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """Both sides are read in the same way, so of course they agree. One has to be read at once."""
    return (model(ids_BT) - model(ids_BT)).abs().max()


def _differences(model: Qwen2, ids_BT: Tensor, pieces: tuple[int, ...]) -> Tensor:
    cache = model.new_cache(ids_BT.shape[1], len(ids_BT))
    parts = [model(piece, cache) for piece in ids_BT.split(pieces, dim=1)]
    return torch.cat(parts, dim=1) - model(ids_BT)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "tokens_read": (
        reads_the_last_one_too,
        reads_the_prompt_every_time,
        forgets_the_growth,
        reads_a_token_for_each,
    ),
    "continue_ids": (
        looks_at_the_first_position,
        reads_all_again,
        without_a_cache,
        a_new_cache_each_step,
        last_of_the_prompt_twice,
        prompt_and_all,
    ),
    "next_tokens": (one_cache_for_all, wiped_but_not_set_back, reads_the_last_token_only),
    "split_error": (
        of_the_last_position,
        a_cache_for_each_piece,
        with_its_sign,
        on_average,
        of_the_first_text,
        beside_itself,
    ),
}
"""The wrong versions of each task."""
