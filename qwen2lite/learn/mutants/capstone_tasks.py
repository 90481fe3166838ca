"""Wrong answers to the third task of the exercise 90_capstone: to continue a text greedily.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

LogitsOf = Callable[[Tensor], Tensor]


def with_the_prompt(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """The prompt is in the answer too. Only what was written is wanted."""
    return ids_T.tolist() + _written(logits_of, ids_T, count, stop)


def with_the_stop(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """The stop token is in the answer. It ends the text and isn't a part of it: look before you add."""
    written: list[int] = []
    while len(written) < count and not (written and written[-1] in stop):
        written += _written(logits_of, _with(ids_T, written), 1, ())
    return written


def never_stops(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """It writes on after a stop token, as chats do whose end was forgotten: the model then plays the
    next turn, too."""
    return _written(logits_of, ids_T, count, ())


def first_stop_only(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """Only one of the stop tokens ends the text. Qwen2's chat models have two, <|im_end|> and
    <|endoftext|>: ask `token in stop`."""
    return _written(logits_of, ids_T, count, list(stop)[:1])


def skips_the_stop(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """A stop token is left out, and writing goes on. At a stop token the text is over: return."""
    return [token for token in _written(logits_of, ids_T, count, ()) if token not in stop]


def stopped_by_the_prompt(
    logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]
) -> Any:
    """A stop token in the prompt ends everything. A conversation is full of <|im_end|>: only what is
    written now counts."""
    found = any(token in stop for token in ids_T.tolist())
    return [] if found else _written(logits_of, ids_T, count, stop)


def one_too_many(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """One token more is written than was asked for."""
    return _written(logits_of, ids_T, count + 1, stop)


def one_too_few(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """One token fewer is written than was asked for."""
    return _written(logits_of, ids_T, max(0, count - 1), stop)


def first_row(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """The scores of the first position are asked, and they say what comes second in the text. What
    comes next is in the last row, logits[-1]."""
    return _written(lambda x_T: logits_of(x_T)[:1], ids_T, count, stop)


def best_of_all_rows(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """argmax goes over all positions at once: without a dimension it counts through the whole matrix.
    What comes next is in the last row, logits[-1]."""
    return _written(lambda x_T: logits_of(x_T).amax(0)[None], ids_T, count, stop)


def only_the_new_token(
    logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]
) -> Any:
    """After the first step the model is given the new token alone. That needs a cache; without one it
    has to read the whole text again, prompt and all that was written."""
    first = _written(logits_of, ids_T, min(count, 1), stop)
    if not first:
        return first
    return first + _written(lambda x_T: logits_of(x_T[-1:]), torch.tensor(first), count - 1, stop)


def text_not_extended(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> Any:
    """The new token is never put behind the text, so that the same question gets the same answer
    again and again. Give the model the prompt and all that was written."""
    return _written(logits_of, ids_T, 1, stop) * count


def _written(logits_of: LogitsOf, ids_T: Tensor, count: int, stop: Collection[int]) -> list[int]:
    written: list[int] = []
    while len(written) < count:
        token = int(logits_of(_with(ids_T, written))[-1].argmax())
        if token in stop:
            break
        written.append(token)
    return written


def _with(ids_T: Tensor, written: list[int]) -> Tensor:
    return torch.cat((ids_T, torch.tensor(written, dtype=ids_T.dtype)))


MISREAD = (
    with_the_prompt, one_too_many, one_too_few, first_row, best_of_all_rows, text_not_extended,
)  # fmt: skip
"""Those that show without any stop token."""
OVERRUN = (with_the_stop, never_stops, skips_the_stop)
"""Those that a stop token brings to light."""
MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "next_ids": (
        *MISREAD, *OVERRUN, first_stop_only, stopped_by_the_prompt, only_the_new_token,
    ),
}  # fmt: skip
"""The wrong versions of the task."""
