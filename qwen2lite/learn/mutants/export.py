"""Wrong ways to cut a model into files. The docstring says what is wrong."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Shards = list[dict[str, Tensor]]


def last_one_lost(tensors: dict[str, Tensor], max_shard_bytes: int) -> Shards:
    """A shard is put on the list when the next one begins, and nothing begins after the last: its
    tensors are in no file. After the loop there is one shard more to keep."""
    shards: Shards = []
    shard: dict[str, Tensor] = {}
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if shard and tensor.nbytes > room:
            shards.append(shard)
            shard, room = {}, max_shard_bytes
        shard[name] = tensor
        room -= tensor.nbytes
    return shards


def numbers_for_bytes(tensors: dict[str, Tensor], max_shard_bytes: int) -> Shards:
    """Numbers are counted for bytes. A float32 takes four, a bfloat16 two: `nbytes` knows."""
    return _filled(tensors, max_shard_bytes, lambda tensor: tensor.numel())


def an_empty_file_first(tensors: dict[str, Tensor], max_shard_bytes: int) -> Shards:
    """A tensor that is larger than a file may be opens a new shard even where the last is still empty,
    and leaves a file without a tensor behind. It has to go somewhere: into a shard of its own."""
    shards: Shards = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def room_not_renewed(tensors: dict[str, Tensor], max_shard_bytes: int) -> Shards:
    """The room is not made new with a new shard, so that after the first cut every tensor gets a file
    of its own. A new shard has all its room."""
    shards: Shards = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def looked_at_too_late(tensors: dict[str, Tensor], max_shard_bytes: int) -> Shards:
    """The tensor is put in first, and then the shard is found to be full: each file is too large by its
    last tensor. Look at the room before."""
    shards: Shards = [{}]
    used = 0
    for name, tensor in tensors.items():
        if used >= max_shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    return shards


def _filled(
    tensors: dict[str, Tensor], max_shard_bytes: int, size: Callable[[Tensor], int]
) -> Shards:
    shards: Shards = [{}]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + size(tensor) > max_shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += size(tensor)
    return shards


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "split": (
        last_one_lost,
        numbers_for_bytes,
        an_empty_file_first,
        room_not_renewed,
        looked_at_too_late,
    ),
}
"""The wrong versions of each part."""
