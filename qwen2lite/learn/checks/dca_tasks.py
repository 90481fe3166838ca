"""What the exercise 53_dca asks beside the parts: how far chunks are exact, and a merge to mend."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    require_number,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.dca_tasks import MUTANTS

Part = Callable[..., Any]


def check_tokens_that_agree(tokens_that_agree: Part) -> Iterator[str]:
    """The sizes of two figures, then half a chunk as window, and windows larger than that."""
    facts = {
        (7, 2): "right for the report's figure",
        (9, 3): "right for the paper's example",
        (32768, 1024): "right for the real sizes",
        (8, 4): "with a window of half of chunk_size it is one less",
        (8, 6): "and with a larger window it is two chunks",
    }
    for sizes, fact in facts.items():
        got, want = call(tokens_that_agree, *sizes), _tokens_that_agree(*sizes)
        require_number(got, "tokens_that_agree", whole=True)
        if got != want:
            raise Mistake(
                f"With chunk_size {sizes[0]} and local_size {sizes[1]} it is {want}, yours {got}.",
                usual_reason(MUTANTS["tokens_that_agree"], got, *sizes),
            )
        yield fact


def _tokens_that_agree(chunk_size: int, local_size: int) -> int:
    """Token by token: the first key is the furthest, so it is the first whose distance is wrong."""
    chunk_len, token = chunk_size - local_size, 0
    last = min(2 * chunk_len - 1, chunk_size)
    while True:
        places = (token % chunk_len, min(token % chunk_len + chunk_len, chunk_size), last)
        if places[min(token // chunk_len, 2)] != token:
            return token
        token += 1


def check_running_merge(running_merge: Part) -> Iterator[str]:
    """The loudest piece first, then last, in the middle, and lse of hundreds."""
    orders = {
        "the loudest piece first": [math.log(6), math.log(2)],
        "the loudest piece last": [math.log(2), math.log(6)],
        "the loudest of three in the middle": [math.log(2), math.log(6), math.log(4)],
        "lse of hundreds, rising and falling": [-300.0, 400.0, -300.0, 400.0 + math.log(3)],
    }
    for fact, each in orders.items():
        lse = tuple(torch.full((1, 1, 1), one) for one in each)
        mixed = tuple(torch.full((1, 1, 1, 1), 10.0 * (n + 1)) for n in range(len(each)))
        got = call(running_merge, mixed, lse)
        require_tensor(got, [1, 1, 1, 1], torch.float32, "running_merge")
        weights = torch.tensor(each, dtype=torch.float64).softmax(0)
        want = sum(float(weight) * 10 * (n + 1) for n, weight in enumerate(weights))
        if not same(got.flatten(), torch.tensor([want])):
            raise Mistake(
                f"Pieces {[10 * (n + 1) for n in range(len(each))]} with lse "
                f"{numbers(torch.tensor(each))}: wanted {want:.4g}, got {numbers(got)}.",
                usual_reason(MUTANTS["running_merge"], got, mixed, lse),
            )
        yield fact
