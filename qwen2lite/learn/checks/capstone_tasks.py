"""What the third task of the exercise 90_capstone asks: a text continued greedily, without a cache."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import Mistake, call, describe, usual_reason
from qwen2lite.learn.mutants import capstone_tasks as wrong

Part = Callable[..., Any]


def check_next_ids(next_ids: Part) -> Iterator[str]:
    """A model that counts, with and without stops, and one that has to see all of the text."""
    for prompt, count, stop, want, said, known in (
        ([1, 2], 3, (), [3, 4, 0], "three tokens", wrong.MISREAD),
        ([1, 2], 10, (0,), [3, 4], "a stop token ends it and isn't in it", wrong.OVERRUN),
        ([2], 10, (1, 0), [3, 4], "one of two stop tokens", [wrong.first_stop_only]),
        ([0, 2], 10, (0,), [3, 4], "not one in the prompt", [wrong.stopped_by_the_prompt]),
        ([4, 3], 10, (4,), [], "nothing, where the first is a stop", []),
        ([2, 3], 0, (), [], "nothing, where nothing is asked for", [wrong.one_too_many]),
    ):
        _require(next_ids, _counting, (prompt, count, stop), want, known)
        yield f"{said}: {want}"
    for prompt in ([3, 1, 4], [2]):
        asked = prompt, 6, ()
        _require(next_ids, _summing, asked, _summed(prompt, 6), [wrong.only_the_new_token])
    yield "each token from the whole text, whatever its length"


def _require(
    part: Part,
    model: Callable[[Tensor], Tensor],
    given: tuple[list[int], int, tuple[int, ...]],
    want: list[int],
    known: Collection[Part],
) -> None:
    prompt, count, stop = given
    asked = model, torch.tensor(prompt), count, stop
    got = call(part, *asked, name="next_ids")
    try:
        ids = [int(token) for token in got]
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"next_ids returned {describe(got)}; a list of ids was wanted.") from None
    if ids != want:
        kind = "one more than the last id" if model is _counting else "the sum of all ids"
        raise Mistake(
            f"The model says {kind}, modulo 5. After {prompt}, with a count of {count} and the stops "
            f"{list(stop)}, {want} was wanted, and yours is {ids}.",
            usual_reason(known, ids, *asked),
        )


def _counting(ids_T: Tensor) -> Tensor:
    return _scores(torch.as_tensor(ids_T) + 1)


def _summing(ids_T: Tensor) -> Tensor:
    return _scores(torch.as_tensor(ids_T).cumsum(0))


def _scores(best_T: Tensor) -> Tensor:
    """logits_TV with the largest at `best_T` modulo 5. Rows differ in height, and some lie below 0."""
    if best_T.ndim != 1:
        shape = list(best_T.shape)
        raise ValueError(f"logits_of wants ids of shape [T], one text, and got {shape}")
    logits_TV = torch.zeros(len(best_T), 5)
    logits_TV[torch.arange(len(best_T)), best_T % 5] = 1.0
    return logits_TV + (torch.arange(len(best_T))[:, None] * 7 % 5 - 4)


def _summed(prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(sum(text) % 5)
    return text[len(prompt) :]
