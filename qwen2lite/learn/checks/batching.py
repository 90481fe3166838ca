"""What `left_pad` and `batch_mask` have to do. Expected values are by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    require_tensor,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.batching import MUTANTS, lists_alone

Part = Callable[..., Any]


def check_left_pad(left_pad: Part) -> Iterator[str]:
    """Three prompts by hand, another padding, a tuple, a text that holds the padding's id."""
    want = [[11, 12, 13], [0, 0, 21], [0, 31, 32]]
    _require_padded(left_pad, ([[11, 12, 13], [21], [31, 32]],), want, [0, 2, 1])
    yield "three prompts end in the last column"
    _require_padded(left_pad, ([[1], [2, 3]], 7), [[7, 1], [2, 3]], [1, 0])
    yield "filled with the id that was given"
    try:
        _require_padded(left_pad, ([(1,), [2, 3]], 7), [[7, 1], [2, 3]], [1, 0])
    except Mistake as mistake:
        # As lists they were right, so what it raises comes of the tuple.
        wrong = f"With a tuple for a prompt: {mistake.wrong}"
        raise Mistake(wrong, mistake.reason or told_by(lists_alone)) from None
    yield "a prompt may be a tuple"
    _require_padded(left_pad, ([[0, 5, 0], [0]],), [[0, 5, 0], [0, 0, 0]], [0, 2])
    yield "a text may hold the padding's id"
    _require_padded(left_pad, ([[4, 5], [6, 7]],), [[4, 5], [6, 7]], [0, 0])
    yield "prompts of one length need none"


def _require_padded(
    left_pad: Part, inputs: tuple[Any, ...], rows: list[list[int]], padding: list[int]
) -> None:
    got = call(left_pad, *inputs, name="left_pad")
    why = usual_reason(MUTANTS["left_pad"], got, *inputs)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"left_pad returned {describe(got)}; a pair was wanted: ids and padding.")
    shape = [len(rows), len(rows[0])]
    require_tensor(got[0], shape, torch.long, "left_pad's first answer", why)
    require_tensor(got[1], shape[:1], torch.long, "left_pad's second answer", why)
    asked = f"For {inputs[0]} left_pad's"
    if got[0].tolist() != rows:
        raise Mistake(f"{asked} rows are {got[0].tolist()}; wanted {rows}.", why)
    if got[1].tolist() != padding:
        raise Mistake(f"{asked} padding is {got[1].tolist()}; wanted {padding}.", why)


def check_batch_mask(batch_mask: Part) -> Iterator[str]:
    """Masks by hand: whole prompts, a single new token, two. What padding sees is its own affair."""
    rows = [["100", "110", "111"], ["?", "?", "001"], ["?", "010", "011"]]
    _require_mask(batch_mask, [0, 2, 1], 3, rows)
    yield "each row is causal, and no text sees padding"
    _require_mask(batch_mask, [0, 2, 1], 4, [["1111"], ["0011"], ["0111"]])
    yield "a new token sees its own text"
    _require_mask(batch_mask, [3, 1], 5, [["00010", "00011"], ["01110", "01111"]])
    yield "with a cache the queries are the last ones"


def _require_mask(batch_mask: Part, padding: list[int], keys: int, rows: list[list[str]]) -> None:
    """`rows` of each text, a string a query, and "?" where the query is padding."""
    inputs = torch.tensor(padding), len(rows[0]), keys
    got = call(batch_mask, *inputs, name="batch_mask")
    why = usual_reason(MUTANTS["batch_mask"], got, *inputs)
    asked = f"batch_mask({padding}, {inputs[1]}, {keys})"
    require_tensor(got, [len(rows), 1, len(rows[0]), keys], torch.bool, asked, why)
    for text, (mine, wanted) in enumerate(zip(got[:, 0].tolist(), rows, strict=True)):
        for query, (seen, want) in enumerate(zip(mine, wanted, strict=True)):
            written = "".join(str(int(one)) for one in seen)
            where = f"{asked}: in text {text} the query {query} sees {written}"
            if want == "?" and not any(seen):
                raise Mistake(f"{where}; nothing at all makes NaN of its softmax.", why)
            if want not in ("?", written):
                raise Mistake(f"{where}; wanted {want}.", why)
