"""Wrong ways from documents to batches: packing, the mask of documents, and going on."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen2lite.model.attention import causal_mask
from qwen2lite.train.loader import document_mask

Documents = Sequence[Sequence[int]]
Batch = tuple[Tensor, Tensor]


def _row(documents: Documents, eos: int) -> Tensor:
    return torch.tensor([token for ids in documents for token in (*ids, eos)])


def _windows(row: Tensor, length: int, ahead: int = 1) -> Batch:
    """Windows of a row, and the tokens that stand `ahead` of them."""
    end = (len(row) - max(ahead, 1)) // length * length
    return row[:end].view(-1, length), row[ahead : end + ahead].view(-1, length)


def without_eos(documents: Documents, eos: int, length: int) -> Batch:
    """Nothing stands between the documents. The model learns that a recipe goes on as a contract,
    and never to end a text (stanford-crfm/mistral #91, lit-llama #329)."""
    return _windows(torch.tensor(list(chain.from_iterable(documents))), length)


def eos_in_front(documents: Documents, eos: int, length: int) -> Batch:
    """eos stands before each document. Qwen2 has no sign for a beginning: `<|endoftext|>` comes
    after a document, and the last one needs it too."""
    return _windows(torch.tensor([t for ids in documents for t in (eos, *ids)]), length)


def target_is_the_token(documents: Documents, eos: int, length: int) -> Batch:
    """The target is the token itself. It stands in the input, so the loss falls to nearly nothing
    and nothing is learnt (MONAI GenerativeModels #314)."""
    row = _row(documents, eos)
    ids_BT, _ = _windows(row, length)
    return ids_BT, ids_BT.clone()


def target_two_ahead(documents: Documents, eos: int, length: int) -> Batch:
    """The target is two tokens further, as where the data shift and the loss shifts again
    (transformers #47394)."""
    return _windows(_row(documents, eos), length, ahead=2)


def target_before(documents: Documents, eos: int, length: int) -> Batch:
    """The target is the token *before*: the row is moved the wrong way."""
    row = _row(documents, eos)
    end = (len(row) - 1) // length * length
    return row[1 : end + 1].view(-1, length), row[:end].view(-1, length)


def borders_lost(documents: Documents, eos: int, length: int) -> Batch:
    """Every window takes T + 1 tokens for itself, so the first token of each is never a target. The
    last target of a window is the first token of the next: the windows start T apart."""
    row = _row(documents, eos)
    rows = row[: len(row) // (length + 1) * (length + 1)].view(-1, length + 1)
    return rows[:, :-1], rows[:, 1:]


def rolled_round(documents: Documents, eos: int, length: int) -> Batch:
    """The row is rolled, so the last token's target is the first token of the corpus. The last
    token has no next one: leave its window out."""
    row = _row(documents, eos)
    end = len(row) // length * length
    return row[:end].view(-1, length), row.roll(-1)[:end].view(-1, length)


def eos_to_the_next(ids_BT: Tensor, eos: int) -> Tensor:
    """eos is counted to the document after it. It ends the one before: a query at eos has to see
    that text, or it can't tell that it is over."""
    return (ids_BT == eos).long().cumsum(-1)


def counted_down_the_batch(ids_BT: Tensor, eos: int) -> Tensor:
    """The ends are counted from window to window, dimension 0. Wanted is along the text: -1."""
    ends_BT = (ids_BT == eos).long()
    return ends_BT.cumsum(0) - ends_BT


def ends_only(ids_BT: Tensor, eos: int) -> Tensor:
    """These are the ends of documents, not their numbers: add them up along the text."""
    return (ids_BT == eos).long()


def mask_dropped(documents_BT: Tensor) -> Tensor:
    """Documents are not looked at: the mask is plainly causal, and the second text of a window
    reads the first. To begin the positions anew instead doesn't help: RoPE shifts what is seen and
    hides nothing (WrinkleFree #53)."""
    windows, length = documents_BT.shape
    return causal_mask(length, length, documents_BT.device).expand(windows, 1, -1, -1)


def sees_the_future(documents_BT: Tensor) -> Tensor:
    """A query sees its whole document, also what comes after it, which it has to predict. Both are
    asked for: the same document *and* not later."""
    return (documents_BT[:, :, None] == documents_BT[:, None, :])[:, None]


def first_for_all(documents_BT: Tensor) -> Tensor:
    """All windows get the mask of the first one, but each has its borders elsewhere."""
    return document_mask(documents_BT[:1]).expand(len(documents_BT), -1, -1, -1)


def hides_what_is_seen(documents_BT: Tensor) -> Tensor:
    """True and False are swapped. Here True means "may look"."""
    return ~document_mask(documents_BT)


def no_place_for_heads(documents_BT: Tensor) -> Tensor:
    """The dimension of the heads is missing. Scores are [B, N, T, S]: without the 1 a mask's windows
    would be taken for heads."""
    return document_mask(documents_BT)[:, 0]


def _epoch(windows: int, seed: int, epoch: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(windows).tolist()


def _from_epoch(windows: int, seed: int, epoch: int) -> Iterator[int]:
    while True:
        yield from _epoch(windows, seed, epoch)
        epoch += 1


def forgets_the_epoch(windows: int, seed: int, windows_read: int = 0) -> Iterator[int]:
    """Going on in a later epoch, it shuffles as in the first. Part of the corpus is read twice and
    part of it never; within the first epoch nobody notices (transformers #40691, accelerate #2016).
    Which order comes must follow from the number of the epoch."""
    chance = np.random.default_rng(seed)
    skipped = windows_read % windows
    while True:
        for number in chance.permutation(windows)[skipped:]:
            yield int(number)
        skipped = 0


def begins_again(windows: int, seed: int, windows_read: int = 0) -> Iterator[int]:
    """`windows_read` is not used: each start reads the corpus from its beginning (EasyR1 #57). A run
    that is stopped every hour never sees the end of it."""
    return _from_epoch(windows, seed, 0)


def last_one_again(windows: int, seed: int, windows_read: int = 0) -> Iterator[int]:
    """It goes on one window too early: the last one is read twice. `windows_read` windows are done,
    and the next has just that number, for one counts from 0."""
    whole = _from_epoch(windows, seed, 0)
    for _ in range(windows_read - 1):
        next(whole)
    return whole


def on_to_the_next_epoch(windows: int, seed: int, windows_read: int = 0) -> Iterator[int]:
    """It goes on with the next epoch, and the rest of the one that was stopped is never read
    (accelerate #2823)."""
    return _from_epoch(windows, seed, -(-windows_read // windows))


def one_order_for_all(windows: int, seed: int, windows_read: int = 0) -> Iterator[int]:
    """Every epoch has the same order, so the same windows meet in a step again and again."""
    order = _epoch(windows, seed, 0)
    while True:
        yield order[windows_read % windows]
        windows_read += 1


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "pack": (
        without_eos,
        eos_in_front,
        target_is_the_token,
        target_two_ahead,
        target_before,
        borders_lost,
        rolled_round,
    ),
    "document_numbers": (eos_to_the_next, counted_down_the_batch, ends_only),
    "document_mask": (
        mask_dropped,
        sees_the_future,
        first_for_all,
        hides_what_is_seen,
        no_place_for_heads,
    ),
    "mended_windows": (
        forgets_the_epoch,
        begins_again,
        last_one_again,
        on_to_the_next_epoch,
        one_order_for_all,
    ),
}
"""The wrong versions of each task."""
