"""Wrong versions of `left_pad` and `batch_mask`. The docstring of each says what the mistake was."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.infer.padding import batch_mask, left_pad

Prompts = Sequence[Sequence[int]]


def pads_on_the_right(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """The padding stands after the text. Then the last column, where the next token is scored, is
    padding in all rows but the longest, and the new tokens would come after a hole."""
    longest = max(map(len, prompts))
    rows = [[*prompt, *[pad_id] * (longest - len(prompt))] for prompt in prompts]
    return torch.tensor(rows), left_pad(prompts)[1]


def counts_the_text(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """The second answer says how long each prompt is. Wanted is how many places are padding."""
    return left_pad(prompts, pad_id)[0], torch.tensor([len(prompt) for prompt in prompts])


def counts_pad_ids(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Every place with the padding's id is counted, and a text may hold this id as well: often it is
    that of an end token. Count from the lengths."""
    ids_BT, _ = left_pad(prompts, pad_id)
    return ids_BT, (ids_BT == pad_id).sum(-1)


def cuts_to_the_shortest(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """All prompts are cut to the length of the shortest, and what was cut off is never read."""
    shortest = min(map(len, prompts))
    rows = [list(prompt[-shortest:]) for prompt in prompts]
    return torch.tensor(rows), torch.zeros(len(rows), dtype=torch.long)


def lists_alone(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """The padding is a list, and Python adds only a list to it. A prompt may be any sequence, such as
    a tuple: make a list of it first, `list(prompt)`."""
    longest = max(map(len, prompts))
    given: Any = prompts  # any sequences, whatever the line below takes them for
    return torch.tensor([[pad_id] * (longest - len(p)) + p for p in given]), left_pad(prompts)[1]


def always_zero(prompts: Prompts, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """The padding is 0 whatever pad_id says."""
    return left_pad(prompts)


def looks_at_padding(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """The mask is causal and nothing else, so a text sees the padding before it, as if it were text
    (TransformerLens #1005)."""
    return batch_mask(torch.zeros_like(padding_B), queries, keys)


def padding_sees_nothing(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """A place of padding sees nothing at all, not even itself: its softmax divides 0 by 0. The NaN is
    a value in the next layer, and 0 times NaN is NaN (transformers #38690)."""
    is_text_BS = torch.arange(keys) >= padding_B[:, None]
    return batch_mask(padding_B, queries, keys) & is_text_BS[:, None, None]


def hides_the_right(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """The last columns of a row are hidden, as if the padding stood on the right."""
    columns_S = torch.arange(keys)
    is_text_BS = columns_S < keys - padding_B[:, None]
    return is_text_BS[:, None, None] & looks_at_padding(padding_B, queries, keys)


def from_the_first_column(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """The queries are taken for the first T columns. With a cache they are the last ones."""
    return batch_mask(padding_B, keys, keys)[:, :, :queries]


def looks_ahead(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """Padding is hidden, but the future isn't: each row has to be causal as well."""
    is_text_BS = torch.arange(keys) >= padding_B[:, None]
    return is_text_BS[:, None, None] | batch_mask(padding_B, queries, keys)


def hides_one_too_many(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """The first token of each text is hidden as well: columns are counted from 0, so the text begins
    at the column `padding`, and > should be >=."""
    return batch_mask(padding_B + 1, queries, keys)


def without_the_heads(padding_B: Tensor, queries: int, keys: int) -> Tensor:
    """A dimension is missing: scores are [B, N, T, S], and a mask [B, T, S] would be taken for one of
    N heads. All heads share the mask: [B, 1, T, S]."""
    return batch_mask(padding_B, queries, keys)[:, 0]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "left_pad": (
        pads_on_the_right,
        counts_the_text,
        counts_pad_ids,
        cuts_to_the_shortest,
        lists_alone,
        always_zero,
    ),
    "batch_mask": (
        looks_at_padding,
        padding_sees_nothing,
        hides_the_right,
        from_the_first_column,
        looks_ahead,
        hides_one_too_many,
        without_the_heads,
    ),
}
"""The wrong versions of each function."""
