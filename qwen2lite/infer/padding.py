"""Texts of different lengths in one tensor: padding on the left, and a mask that hides it.

On the left, so that all texts end in the last column: there the next token is scored, and there each
row's next token goes. Padding on the right would stand between a text and its own continuation.
"""

from collections.abc import Sequence

import torch


def left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts prompts of different lengths into one tensor, so that all of them end in its last column.

    Args:
        prompts: token ids, at least one prompt.
        pad_id: fills the places before a prompt. Any id will do, because nobody looks there.

    Returns:
        ids_BT, and padding_B: how many places of each row are padding.
    """
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [[pad_id] * empty + list(ids) for empty, ids in zip(padding, prompts, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)


def batch_mask(padding_B: torch.Tensor, queries: int, keys: int) -> torch.Tensor:
    """A mask for `attend`: each row is causal, and no token sees the padding before its text.

    Padding sees itself. If it saw nothing, its softmax would divide 0 by 0, and the NaN would come
    back as a value: a weight of 0 times NaN is NaN.

    Args:
        padding_B: columns at the beginning of each row that hold no text.
        queries: T; they stand at the last T of the S columns.
        keys: S.

    Returns:
        bool, True where a query may look, shape [B, 1, T, S].
    """
    columns_S = torch.arange(keys, device=padding_B.device)
    places_T = columns_S[keys - queries :]
    is_text_BS = columns_S >= padding_B[:, None]
    before_TS, itself_TS = columns_S < places_T[:, None], columns_S == places_T[:, None]
    return (is_text_BS[:, None] & before_TS | itself_TS)[:, None]
