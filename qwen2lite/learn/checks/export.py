"""What the exercise 84_export asks of the part of an exporter that cuts a model into files."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import Mistake, call, describe, usual_reason
from qwen2lite.learn.mutants.export import MUTANTS

Part = Callable[..., Any]


def check_split(split: Part) -> Iterator[str]:
    """Sizes by hand, what just fits, a tensor that is too large, and two dtypes."""
    for sizes, limit, want, what in (
        ([3, 2, 4, 1, 6], 6, [[0, 1], [2, 3], [4]], "3 2 4 1 6 bytes in files of 6: 3 2 | 4 1 | 6"),
        ([3, 3, 1, 5], 6, [[0, 1], [2, 3]], "what just fits goes in"),
        ([2, 1], 6, [[0, 1]], "little enough is one file"),
        ([9, 1, 2], 6, [[0], [1, 2]], "a tensor that is too large has a file of its own"),
        ([1, 9, 1], 6, [[0], [1], [2]], "also in the middle"),
        ([1] * 13, 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]], "thirteen of 1"),
    ):
        tensors = {f"t{n}": torch.zeros(size, dtype=torch.uint8) for n, size in enumerate(sizes)}
        _require_shards(split, tensors, limit, want)
        yield what

    wide = {f"t{n}": torch.zeros(2, 3, dtype=kind) for n, kind in enumerate(_KINDS)}
    _require_shards(split, wide, 24, [[0], [1, 2]])
    yield "six numbers in float32 are 24 bytes, in bfloat16 and float16 12"


_KINDS = (torch.float32, torch.bfloat16, torch.float16)


def _require_shards(
    split: Part, tensors: dict[str, Tensor], limit: int, want: list[list[int]]
) -> None:
    got = call(split, tensors, limit)
    if not isinstance(got, list | tuple) or not all(isinstance(shard, dict) for shard in got):
        raise Mistake(f"split returned {describe(got)}; a list of dicts of tensors was wanted.")
    wanted = [[f"t{n}" for n in shard] for shard in want]
    if _names(got) != wanted:
        sizes = [tensor.nbytes for tensor in tensors.values()]
        why = usual_reason(map(_naming, MUTANTS["split"]), _names(got), tensors, limit)
        raise Mistake(
            f"Tensors of {sizes} bytes in files of at most {limit} should be {wanted}, and "
            f"yours are {_names(got)}.",
            why,
        )
    for shard in got:
        for name, tensor in shard.items():
            if tensor is not tensors[name]:
                raise Mistake(f"{name} is not the tensor that was given under this name.")


def _names(shards: Any) -> list[list[str]]:
    return [list(shard) for shard in shards]


def _naming(mutant: Part) -> Part:
    def answer(*inputs: Any) -> list[list[str]]:
        return _names(mutant(*inputs))

    answer.__doc__ = mutant.__doc__
    return answer
