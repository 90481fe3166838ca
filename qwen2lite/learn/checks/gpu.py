"""What the exercise 83_gpu asks of a step: a size, a mask, a column, and a recording played again.

A mask and a column are recorded at one place and played again at another, as a CUDA graph would: what
was computed by Python while recording is then seen to stay behind.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qwen2lite.infer.compile import StaticStep
from qwen2lite.learn.cases import PROBE, draw_weights
from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_number,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.gpu import MUTANTS
from qwen2lite.learn.tape import Tape
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]


def check_static_size(static_size: Part) -> Iterator[str]:
    """Below the least size, at a size, one above it, and a whole context."""
    for length, want in ((1, 256), (256, 256), (257, 512), (600, 1024), (32_768, 32_768)):
        got = call(static_size, length)
        require_number(got, "static_size", whole=True)
        if got != want:
            raise Mistake(
                f"static_size({length:,}) is {want:,}, and yours is {got:,}.",
                _size_reason(static_size),
            )
        yield f"for {length:,}: {want:,} columns"
    sizes = {call(static_size, length) for length in range(1, 32_769, 97)}
    if len(sizes) > 8:
        raise Mistake(f"For texts up to 32,768 tokens there are {len(sizes)} sizes; 8 will do.")
    yield "8 sizes for all texts up to 32,768"


def _size_reason(part: Part) -> str:
    lengths = (1, 256, 257, 600)
    mine = [call(part, length, name="static_size") for length in lengths]
    known = (m for m in MUTANTS["static_size"] if [m(length) for length in lengths] == mine)
    return next(map(told_by, known), "")


def check_seen_columns(seen_columns: Part) -> Iterator[str]:
    """By hand, at both ends, then recorded at one position and played at others."""
    for place, what in ((2, "at position 2"), (0, "the first token"), (7, "a full cache")):
        position_T, want = torch.tensor([place]), torch.tensor([s <= place for s in range(8)])
        got = call(seen_columns, position_T, 8)
        why = usual_reason(MUTANTS["seen_columns"], got, position_T, 8)
        require_tensor(got, [8], torch.bool, "seen_columns", why)
        if not torch.equal(got, want):
            raise Mistake(
                f"At position {place} of 8 columns {_bits(want)} are seen, yours sees {_bits(got)}.",
                why,
            )
        yield f"{what}: {_bits(want)}"

    position_T = torch.tensor([2])
    tape = _record(partial(seen_columns, position_T, 8), "seen_columns")
    for place in (5, 1):
        position_T.fill_(place)
        mine, wanted = _bits(tape()), "1" * (place + 1) + "0" * (7 - place)
        if mine != wanted:
            raise Mistake(
                f"Recorded at position 2 and played at {place}, it sees {mine}; {wanted} was wanted.",
                _told_by("position_baked_in", "seen_columns"),
            )
    yield "recorded at position 2, played at 5 and at 1: it looks at the position anew"


def _bits(seen: Tensor) -> str:
    return "".join("1" if one else "0" for one in seen.tolist())


def _told_by(mutant: str, task: str) -> str:
    return next(told_by(m) for m in MUTANTS[task] if m.__name__ == mutant)


def _record(run: Callable[[], Any], name: str) -> Tape:
    """The part on a tape, its errors told as usual."""
    Tape(lambda: torch.zeros(1))  # the first may let PyTorch import, which isn't the learner's time
    tape: Tape = call(lambda: Tape(run), name=name)
    return tape


def check_write_column(write_column: Part) -> Iterator[str]:
    """In place, one column of every row and head, in the cache's dtype, and where the position says."""
    columns_BKSH = random_normal(2, 3, 5, 4)
    for place in (3, 0):
        before, new_BKTH = columns_BKSH.clone(), random_normal(2, 3, 1, 4, seed=place + 1)
        want = before.clone()
        want[:, :, place] = new_BKTH[:, :, 0]
        position_T = torch.tensor([place])
        got = _written(write_column, columns_BKSH, position_T, new_BKTH)
        require_tensor(got, columns_BKSH.shape, columns_BKSH.dtype, "write_column")
        if not same(got, want, 0.0):
            touched = (got != before).any(-1).any(0).any(0).nonzero().flatten().tolist()
            mutants = MUTANTS["write_column"]
            known = (m for m in mutants if same(m(before.clone(), position_T, new_BKTH), got))
            raise Mistake(
                f"Column {place} should hold the new numbers and the others stay; in yours "
                f"{touched or 'none'} changed.",
                next(map(told_by, known), ""),
            )
        if not same(columns_BKSH, want, 0.0) or got.data_ptr() != columns_BKSH.data_ptr():
            raise Mistake(
                "What came back is right, and lies in other memory than the cache it was given.",
                _told_by(_elsewhere(write_column), "write_column"),
            )
    yield "columns 3 and 0 are written where they lie, and nothing else"

    yield from _check_played_columns(write_column)

    halves = torch.zeros(2, 3, 5, 4, dtype=torch.bfloat16)
    new_BKTH, position_T = random_normal(2, 3, 1, 4), torch.tensor([1])
    try:
        _written(write_column, halves, position_T, new_BKTH)
    except Mistake as mistake:
        raise Mistake(mistake.wrong, _told_by("in_its_own_dtype", "write_column")) from None
    if not same(halves[:, :, 1:2], new_BKTH.bfloat16(), 0.0):
        raise Mistake("float32 numbers didn't arrive in a cache of bfloat16.")
    yield "a cache of bfloat16 takes float32 numbers"


def _written(write_column: Part, *inputs: Tensor) -> Any:
    """Its answer; in a tuple, since the first of its inputs is to be changed."""
    return call(lambda given: write_column(*given), inputs, name="write_column")


def _elsewhere(part: Part) -> str:
    """Which of the two ways to leave the cache as it is this one looks like."""
    position_T = torch.tensor([1])
    tape = _record(partial(part, torch.zeros(1, 1, 3, 2), position_T, torch.ones(1, 1, 1, 2)), "")
    return "joined_on" if "cat" in tape.names else "copied_first"


def _check_played_columns(write_column: Part) -> Iterator[str]:
    columns_BKSH, position_T = torch.zeros(1, 2, 5, 3), torch.tensor([1])
    new_BKTH = torch.zeros(1, 2, 1, 3)
    tape = _record(partial(write_column, columns_BKSH, position_T, new_BKTH), "write_column")
    for place in (2, 4, 0):
        position_T.fill_(place)
        new_BKTH.fill_(place + 1)
        tape()
    got = columns_BKSH[0, 0, :, 0]
    if not torch.equal(got, torch.tensor([1.0, 0.0, 3.0, 0.0, 5.0])):
        raise Mistake(
            "Recorded at position 1, then played at 2, 4 and 0 with the numbers 3, 5 and 1, the "
            f"columns should hold [1, 0, 3, 0, 5], and hold {numbers(got)}.",
            _told_by("place_baked_in", "write_column"),
        )
    yield "recorded at position 1, played at 2, 4 and 0: each column where it belongs"


_TEXTS = ([7, 49, 43, 5, 55], [46, 27, 24])


def check_mended_replay(mended_replay: Part) -> Iterator[str]:
    """A recorded step reads two texts, the second after a longer one."""
    model = Qwen2(PROBE)
    draw_weights(model)
    model.eval()
    mine = _read(mended_replay, model)
    for text, got in zip(_TEXTS, mine, strict=True):
        with torch.no_grad():
            want = model(torch.tensor([text]))[0]
        require_tensor(got, want.shape, want.dtype, "mended_replay")
        if not same(got, want, 1e-3):
            wrong = (got - want).abs().amax(-1) > 1e-3
            known = (m for m in MUTANTS["mended_replay"] if _alike(_read(m, model), mine))
            raise Mistake(
                f"The text {text}: the logits of {_places(wrong)} aren't the model's.",
                next(map(told_by, known), ""),
            )
        yield f"a text of {len(text)} tokens: the logits of the model itself"


def _read(part: Part, model: Qwen2) -> list[Tensor]:
    step = StaticStep(model, 8, 1, with_compiler=False)
    replay = Tape(step.compute)
    with torch.no_grad():
        return [call(part, step, replay, text, name="mended_replay") for text in _TEXTS]


def _alike(theirs: Sequence[Tensor], mine: Sequence[Tensor]) -> bool:
    return all(same(a, b, 1e-4) for a, b in zip(theirs, mine, strict=True))


def _places(wrong: Tensor) -> str:
    found = wrong.nonzero().flatten().tolist()
    return f"position{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
