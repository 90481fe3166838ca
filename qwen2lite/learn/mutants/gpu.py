"""Wrong ways to make a decode step of fixed shape and to play it again, from the exercise 83_gpu."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LEAST = 256


def just_as_long(max_length: int) -> int:
    """Each length gets a size of its own, so each prompt of another length compiles again, for many
    seconds: round up to 256, 512, 1024 …"""
    return max_length


def in_steps_of_256(max_length: int) -> int:
    """It grows by 256 at a time. A context of 32,768 then has 128 sizes, and each is compiled:
    doubling makes 8 of them."""
    return LEAST * max(1, -(-max_length // LEAST))


def doubled_when_full(max_length: int) -> int:
    """A text that fits exactly gets the next size, and looks at twice the columns for nothing: double
    while the size is *smaller* than the text."""
    size = LEAST
    while size <= max_length:
        size *= 2
    return size


def rounded_down(max_length: int) -> int:
    """The size below: the text outgrows its cache. Double until the text fits."""
    size = LEAST
    while 2 * size <= max_length:
        size *= 2
    return size


def from_one_up(max_length: int) -> int:
    """It begins at 1, so a short chat passes 1, 2, 4, 8 … and compiles for each: begin at 256, where
    looking at empty columns costs next to nothing."""
    size = 1
    while size < max_length:
        size *= 2
    return size


def all_columns(position_T: Tensor, size: int) -> Tensor:
    """Nothing is hidden. The columns that aren't written yet hold zeros, a score of 0 is a weight of
    e⁰ = 1, and the text drowns in them (transformers #30414): hide what lies after the position."""
    return torch.ones(size, dtype=torch.bool)


def not_itself(position_T: Tensor, size: int) -> Tensor:
    """The new token's own column is hidden: its key was written in this very step, so position and all
    before it are seen, `<=` and not `<` (an example in onnxruntime/mobius #365 counted so)."""
    return torch.arange(size) < position_T


def one_too_many(position_T: Tensor, size: int) -> Tensor:
    """One column too many is seen, and nothing was written there yet: the last one to be seen is
    position itself."""
    return torch.arange(size) <= position_T + 1


def only_what_is_filled(position_T: Tensor, size: int) -> Tensor:
    """The mask grows with the text, so its shape is another at each step, and nothing can be recorded:
    make all `size` places, and let the comparison decide."""
    return torch.ones(int(position_T) + 1, dtype=torch.bool)


def position_baked_in(position_T: Tensor, size: int) -> Tensor:
    """The position was made a number of Python, with `int`, `.item()` or by slicing. A recording keeps
    that number for ever: compare with the tensor, which is read anew each time. (On a GPU `.item()`
    waits for the device, which a capture refuses: transformers #36729 has such a one.)"""
    return torch.arange(size) <= position_T.item()


def joined_on(columns_BKSH: Tensor, position_T: Tensor, new_BKTH: Tensor) -> Tensor:
    """A new tensor is made. The recording reads the old one, at its address, and never sees the new
    key: write in place, with `index_copy_`."""
    place = int(position_T)
    parts = (columns_BKSH[:, :, :place], new_BKTH, columns_BKSH[:, :, place + 1 :])
    return torch.cat([part.to(columns_BKSH.dtype) for part in parts], dim=2)


def copied_first(columns_BKSH: Tensor, position_T: Tensor, new_BKTH: Tensor) -> Tensor:
    """Without the `_` at its end, `index_copy` copies all columns and writes into the copy: the cache
    itself stays empty, and the recording reads the cache."""
    return columns_BKSH.index_copy(2, position_T, new_BKTH.to(columns_BKSH.dtype))


def place_baked_in(columns_BKSH: Tensor, position_T: Tensor, new_BKTH: Tensor) -> Tensor:
    """The place was made a number of Python, and the recording writes every key into that one column:
    hand the tensor on, `index_copy_` takes it as an index."""
    columns_BKSH[:, :, int(position_T)] = new_BKTH[:, :, 0].to(columns_BKSH.dtype)
    return columns_BKSH


def at_the_end(columns_BKSH: Tensor, position_T: Tensor, new_BKTH: Tensor) -> Tensor:
    """It is written into the last column, as if the cache were a list that grows. Its columns are all
    there from the start: write at the position."""
    columns_BKSH[:, :, -1:] = new_BKTH
    return columns_BKSH


def in_its_own_dtype(columns_BKSH: Tensor, position_T: Tensor, new_BKTH: Tensor) -> Tensor:
    """A cache of bfloat16 was given float32. `index_copy_` wants both alike: `new_BKTH.to(...)` the
    dtype of the columns."""
    return columns_BKSH.index_copy_(2, position_T, new_BKTH)


def as_found(step: Any, replay: Callable[[], Tensor], ids: Sequence[int]) -> Tensor:
    """The name `step.ids_BT` was given another tensor, and the recording goes on reading the first, at
    its old address, as CUDA graphs of ik_llama.cpp #2136 did: copy the id *into* it. (And mind where
    the results lie: all of them in the same memory.)"""
    rows = []
    for position, token in enumerate(ids):
        step.ids_BT = torch.tensor([[token]])
        step.position_T.fill_(position)
        rows.append(replay()[0, -1])
    return torch.stack(rows)


def overwritten(step: Any, replay: Callable[[], Tensor], ids: Sequence[int]) -> Tensor:
    """All rows are the last one. A replay writes its result to the same memory each time, so what one
    wants to keep has to be copied: `.clone()` (torchtune #1371)."""
    rows = []
    for position, token in enumerate(ids):
        step.ids_BT.fill_(token)
        step.position_T.fill_(position)
        rows.append(replay()[0, -1])
    return torch.stack(rows)


def never_starts_anew(step: Any, replay: Callable[[], Tensor], ids: Sequence[int]) -> Tensor:
    """The position goes on from where the last text ended, and the second text sees the first: fill it
    with 0, 1, 2 … for each text."""
    rows = []
    for token in ids:
        step.ids_BT.fill_(token)
        rows.append(replay()[0, -1].clone())
        step.position_T.add_(1)
    return torch.stack(rows)


def position_left_behind(step: Any, replay: Callable[[], Tensor], ids: Sequence[int]) -> Tensor:
    """The name `step.position_T` was given another tensor, and the recording writes every key where the
    first one says: fill that one."""
    rows = []
    for position, token in enumerate(ids):
        step.ids_BT.fill_(token)
        step.position_T = torch.tensor([position])
        rows.append(replay()[0, -1].clone())
    return torch.stack(rows)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "static_size": (just_as_long, in_steps_of_256, doubled_when_full, rounded_down, from_one_up),
    "seen_columns": (
        all_columns,
        not_itself,
        one_too_many,
        only_what_is_filled,
        position_baked_in,
    ),
    "write_column": (joined_on, copied_first, place_baked_in, at_the_end, in_its_own_dtype),
    "mended_replay": (
        as_found,
        overwritten,
        never_starts_anew,
        position_left_behind,
    ),
}
"""The wrong versions of each task."""
